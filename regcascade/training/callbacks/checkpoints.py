"""The checkpoints of a training: the best, and the last."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

CHECKPOINTS = "checkpoints"
_INTERRUPTIONS = (KeyboardInterrupt, SIGTERMException)


def checkpoint_callbacks(has_labels: bool, folder: Path) -> list[Callback]:
    """The callbacks that keep `<folder>/checkpoints/best.ckpt` and `last.ckpt`, also when a run is resumed.

    Args:
        has_labels: best by the highest `val/dice`; without labels by the lowest `val/loss`.
        folder: the run folder.
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
    """Keeps `last.ckpt`, where training can go on, a real file of its own.

    It is written after every validation, when training ends (which a time limit can do far from any
    validation), and when training is interrupted by the user or the scheduler. After any other error the file
    of before stays.

    Args:
        folder: where to write it.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "last.ckpt"
        self._saved_step = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless this validation is not one of a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end, unless its step has been saved already."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save if the training was interrupted rather than failed."""
        if trainer.state.fn == TrainerFn.FITTING and isinstance(exception, _INTERRUPTIONS):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if not _fast_dev_run(trainer) and trainer.global_step > self._saved_step:
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(self.path)


def _fast_dev_run(trainer: L.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it without declaring it
