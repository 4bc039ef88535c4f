"""Lightning's early stopping, on the measure of `best.ckpt`."""

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint


class StopWithoutGain(EarlyStopping):
    """Stop training after `patience` validations in which the measure of `best.ckpt` did not improve.

    That is the validation Dice, or the loss without labels. A change below `min_delta` is no improvement.
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"callbacks.early_stopping.patience={patience}: it counts validations, 1 or more.")
        if min_delta < 0:
            raise ValueError(f"callbacks.early_stopping.min_delta={min_delta}: it must be 0 or more.")
        self._least = min_delta
        super().__init__("val/loss", min_delta, patience, mode="min", check_on_train_epoch_end=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Monitor what the best checkpoint monitors."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare them
        best = next((each for each in callbacks if isinstance(each, ModelCheckpoint)), None)
        if stage == "fit" and best is not None and best.monitor is not None and best.monitor != self.monitor:
            super().__init__(best.monitor, self._least, self.patience, mode=best.mode, check_on_train_epoch_end=False)
        super().setup(trainer, pl_module, stage)
