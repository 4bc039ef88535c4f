"""Moving average of the weights, by Lightning's callback."""

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

RAMP = 10


class AveragedWeights(WeightAveraging):
    """Keep an exponential moving average of the weights; validations and checkpoints use it.

    After t updates the decay is `min(decay, (1 + t) / (10 + t))`, so that the average also suits a short training and
    forgets the initial weights. A resumed training restores the weights and their average exactly.

    Args:
        decay: share of the average that an update keeps, between 0 and 1; 0.999 averages over about 1000 steps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay}: it lies between 0 and 1, such as 0.999.")
        self.decay = decay
        self._swapped = False
        super().__init__(avg_fn=self._average)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Swap the average in."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = self._average_model is not None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Swap the weights back."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Swap the weights back if a validation was interrupted, before a checkpoint is written."""
        if self._swapped:
            self.on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights for the last checkpoint, which training may resume; Lightning replaces them here."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the weights by the average."""
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)

    def _average(self, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        count = torch.as_tensor(updates, device=average.device)
        kept = ((1 + count) / (RAMP + count)).clamp(max=self.decay).to(average.dtype)
        return torch.lerp(current, average, kept)
