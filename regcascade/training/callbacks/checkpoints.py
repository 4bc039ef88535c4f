"""Callbacks that write `best.ckpt` and `last.ckpt`."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

CHECKPOINTS = "checkpoints"
INTERRUPTIONS = (KeyboardInterrupt, SIGTERMException)


def checkpoint_callbacks(has_labels: bool, folder: Path) -> list[Callback]:
    """Make the callbacks that write `<folder>/checkpoints/best.ckpt` and `last.ckpt`.

    Args:
        has_labels: best means the highest `val/dice`; without labels the lowest `val/loss`.
        folder: run folder.
    """
    best = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename="best",
        monitor="val/dice" if has_labels else "val/loss",
        mode="max" if has_labels else "min",
        save_top_k=1,
        save_on_train_epoch_end=False,  # the measure is known after validations only
        auto_insert_metric_name=False,
        enable_version_counter=False,  # best.ckpt, never best-v1.ckpt
    )
    return [best, LastCheckpoint(folder / CHECKPOINTS)]


class LastCheckpoint(Checkpoint):
    """Write `last.ckpt`, from which training can be resumed.

    It is written after every validation, at the end of training, and when the user or the scheduler interrupts
    training. Any other error leaves the previous file.

    Args:
        folder: folder of the file.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "last.ckpt"
        self._saved_step = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after a validation during training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of training."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save if training was interrupted."""
        if trainer.state.fn == TrainerFn.FITTING and isinstance(exception, INTERRUPTIONS):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        """Save, unless this step is saved already."""
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]  # Lightning sets it without declaring it
        if not dry and trainer.global_step > self._saved_step:
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(self.path)
