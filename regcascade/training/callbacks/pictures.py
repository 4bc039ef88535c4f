"""A picture of the first validation pair after each validation."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from regcascade.report.figures.registration import registration_figure
from regcascade.training.callbacks.checkpoints import _fast_dev_run
from regcascade.training.loggers.evaluation import log_picture
from regcascade.types import Batch

PICTURES = "pictures"
PICTURE_KEY = "val/picture"


class PictureCallback(Callback):
    """A page on the first validation pair, always the same, as PNG and to the loggers that take pictures.

    The file is `<run folder>/pictures/validation_<step>.png`; W&B and TensorBoard have it as `val/picture`.

    Args:
        every_n_validations: draw at the first validation and then at every n-th one.

    Raises:
        ValueError: if `every_n_validations` is below 1.
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
        if batch_idx or dataloader_idx or trainer.state.fn != TrainerFn.FITTING:
            return
        if trainer.sanity_checking or _fast_dev_run(trainer) or not trainer.is_global_zero:
            return
        due = self._validations % self.every_n_validations == 0
        self._validations += 1
        if due:
            self._draw(trainer, registration_figure(batch, outputs["registration"]))

    def _draw(self, trainer: L.Trainer, figure: Figure) -> None:
        path = Path(trainer.default_root_dir) / PICTURES / f"validation_{trainer.global_step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        for logger in trainer.loggers:
            log_picture(logger, PICTURE_KEY, figure, path, trainer.global_step)
