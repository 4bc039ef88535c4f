"""Message at the end of training that says why it stopped."""

import time
from datetime import timedelta

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from regcascade.training.callbacks.checkpoints import INTERRUPTIONS


class StopReason(Callback):
    """Print at the end of training the `reason` why it stopped: a limit, early stopping, an interruption, an error."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self._start = time.monotonic()
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the time and the step."""
        self._start = time.monotonic()
        self._first_step = trainer.global_step

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print which limit ended training."""
        self._say(trainer, limit_reached(trainer))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Print that training was interrupted, or which error ended it."""
        if trainer.state.fn == TrainerFn.FITTING:
            interrupted = isinstance(exception, INTERRUPTIONS)
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
    """Name the limit that ended a training, with its value."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare them
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"early stopping ({callback.stopping_reason_message.strip().rstrip('.')})"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"max_steps={trainer.max_steps} reached"
    for callback in callbacks:
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return f"max_time={_clock(callback.time_elapsed() + left)} reached"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f"max_epochs={trainer.max_epochs} reached"
    return "a callback asked for it" if trainer.should_stop else "nothing left to train on"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
