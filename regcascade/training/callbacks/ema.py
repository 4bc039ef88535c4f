"""An average of the weights over a training, by Lightning's callback."""

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

RAMP = 10


class AveragedWeights(WeightAveraging):
    """Keeps an exponential moving average of the weights; validations and checkpoints have it in place of the last.

    Resuming goes on with both, exactly. After t updates the average forgets at `min(decay, (1 + t) / (10 + t))`, so
    that it is of use in a short training too and does not hold on to the first weights.

    Args:
        decay: the share of the average that an update keeps, in the long run; 0.999 averages over some 1000 steps.

    Raises:
        ValueError: if `decay` is not between 0 and 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay}: it lies between 0 and 1, such as 0.999.")
        self.decay = decay
        self._shown = False
        super().__init__(avg_fn=self._average)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in place of the weights."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._shown = self._average_model is not None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the weights back."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._shown = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the weights back if a validation was interrupted, before a checkpoint is written."""
        if self._shown:
            self.on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the weights as they are: the last checkpoint, from which a training may go on, is still to come."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in place of the weights for good."""
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)

    def _average(self, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        count = torch.as_tensor(updates, device=average.device)
        kept = ((1 + count) / (RAMP + count)).clamp(max=self.decay).to(average.dtype)
        return torch.lerp(current, average, kept)
