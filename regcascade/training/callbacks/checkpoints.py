"""Callbacks that write `best.ckpt` and `last.ckpt`, and the plugin that writes them whole or not at all."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from regcascade.utils.files import writing, written_whole

CHECKPOINTS = "checkpoints"
INTERRUPTIONS = (KeyboardInterrupt, SIGTERMException)


def checkpoint_callbacks(has_labels: bool, folder: Path) -> list[Callback]:
    """Make the callbacks that write `best.ckpt` and `last.ckpt` into `<folder>/checkpoints`.

    Best means the highest `val/dice`, or without labels the lowest `val/loss`.
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


class WholeCheckpoints(TorchCheckpointIO):
    """Write a checkpoint to a file beside it, sync it to the disk, and rename it.

    A killed process or a full disk leaves the previous checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; raise NotWritten, with the file and the reason, if that fails."""
        path = Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary, temporary.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # which torch raises after an error of the system
                    if isinstance(cause := error.__context__, OSError):
                        raise OSError(cause.errno, cause.strerror) from error
                    raise
                file.flush()
                os.fsync(file.fileno())
