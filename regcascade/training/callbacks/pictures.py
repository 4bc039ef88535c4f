"""Picture of the first validation pair after each validation."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from regcascade.report.figures.registration import registration_figure
from regcascade.training.loggers.evaluation import log_picture
from regcascade.types import Batch

PICTURES = "pictures"
PICTURE_KEY = "val/picture"


class PictureCallback(Callback):
    """Draw the first validation pair: `<run folder>/pictures/validation_<step>.png`, `val/picture` in loggers.

    Args:
        every_n_validations: draw at the first validation and then at every n-th one.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        if every_n_validations < 1:
            raise ValueError(f"every_n_validations={every_n_validations} must be 1 or more.")
        super().__init__()
        self.every_n_validations = every_n_validations
        self._validations = 0

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first pair of the first batch."""
        if batch_idx or dataloader_idx or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set undeclared
            return
        self._validations += 1
        if (self._validations - 1) % self.every_n_validations:
            return
        figure = registration_figure(batch, outputs["registration"])
        path = Path(trainer.default_root_dir) / PICTURES / f"validation_{trainer.global_step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        for logger in trainer.loggers:
            log_picture(logger, PICTURE_KEY, figure, path, trainer.global_step)
