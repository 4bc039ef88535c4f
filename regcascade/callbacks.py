"""What happens beside the training: checkpoints, a picture for each validation, why it stopped."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from matplotlib.figure import Figure

from regcascade.report.logged import log_picture
from regcascade.report.pictures import registration_figure
from regcascade.types import Batch

CHECKPOINTS = "checkpoints"
PICTURES = "pictures"
PICTURE_KEY = "val/picture"


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


class StopReason(Callback):
    """Says at the end of training why it ended, with the numbers: a limit, early stopping, an interruption.

    Attributes:
        reason: the sentence; empty before the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self._start = time.monotonic()
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note when, and at which step, training starts or goes on."""
        self._start = time.monotonic()
        self._first_step = trainer.global_step

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say which limit ended the training."""
        self._say(trainer, limit_reached(trainer))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Say that it was interrupted, or by which error it ended."""
        if trainer.state.fn == TrainerFn.FITTING:
            interrupted = isinstance(exception, _INTERRUPTIONS)
            self._say(trainer, "interrupted" if interrupted else f"error {type(exception).__name__}")

    def _say(self, trainer: L.Trainer, why: str) -> None:
        steps, seconds = trainer.global_step - self._first_step, time.monotonic() - self._start
        rate = f", {steps / seconds:.3g} steps a second" if steps and seconds > 0 else ""
        self.reason = (
            f"Training stopped: {why}. Step {trainer.global_step}, epoch {trainer.current_epoch}, "
            f"{steps} steps in {_clock(seconds)} including validation{rate}."
        )
        rank_zero_info(self.reason)


def limit_reached(trainer: L.Trainer) -> str:
    """Which limit ended a training that ended by itself, with its value."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning does not declare them
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"early stopping ({callback.stopping_reason_message.strip().rstrip('.')})"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"max_steps={trainer.max_steps} reached"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning does not declare them
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return f"max_time={_clock(callback.time_elapsed() + left)} reached"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f"max_epochs={trainer.max_epochs} reached"
    return "a callback asked for it" if trainer.should_stop else "nothing left to train on"


_INTERRUPTIONS = (KeyboardInterrupt, SIGTERMException)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _fast_dev_run(trainer: L.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it without declaring it
