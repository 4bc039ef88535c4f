"""Stopping a training that no longer improves, by Lightning's callback."""

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint


class StopWithoutGain(EarlyStopping):
    """Ends the training when several validations in a row bring no gain in what `best.ckpt` goes by.

    That is the validation Dice, or the loss where nothing is labelled.

    Args:
        patience: how many validations may pass without a gain.
        min_delta: the least change that is one.

    Raises:
        ValueError: if `patience` is below 1 or `min_delta` below 0.
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"callbacks.early_stopping.patience={patience}: it counts validations, 1 or more.")
        if min_delta < 0:
            raise ValueError(f"callbacks.early_stopping.min_delta={min_delta}: it must be 0 or more.")
        self._least = min_delta
        super().__init__("val/loss", min_delta, patience, mode="min", check_on_train_epoch_end=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Go by what the best checkpoint goes by."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare them
        best = next((each for each in callbacks if isinstance(each, ModelCheckpoint)), None)
        if stage == "fit" and best is not None and best.monitor is not None and best.monitor != self.monitor:
            super().__init__(best.monitor, self._least, self.patience, mode=best.mode, check_on_train_epoch_end=False)
        super().setup(trainer, pl_module, stage)
