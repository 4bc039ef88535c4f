"""What a training logs beside its losses: the norm of the gradient, pairs per second, the peak of memory."""

import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from regcascade.types import Batch
from regcascade.utils.timing import read_clock

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]  # in a module's place

_MIB = 2**20


class GradientNorm(Callback):
    """Logs `train/gradient_norm`, the Euclidean norm over all parameters, before it is clipped.

    Only at the steps that are logged, as it takes a pass over all gradients.
    """

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Log the norm; under mixed precision the gradients have been unscaled by now."""
        if not _is_logged(trainer, trainer.global_step + 1):
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        pl_module.log("train/gradient_norm", torch.nn.utils.get_total_norm(gradients), on_step=True, on_epoch=False)


class Throughput(Callback):
    """Logs `train/pairs_per_second` of all devices since the step logged before, loading included, validation not.

    Lightning's ThroughputMonitor waits for the GPU at every step and takes code to count a batch; this waits only
    where it logs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0
        self._paused = 0.0
        self._pairs = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since, self._pairs = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the pairs, and log them where it is due."""
        self._pairs += len(batch["fixed"]) * trainer.world_size
        if not _is_logged(trainer, trainer.global_step):
            return
        now = read_clock(pl_module.device)
        rate = self._pairs / max(now - self._since, 1e-9)
        pl_module.log("train/pairs_per_second", rate, on_step=True, on_epoch=False, batch_size=1)
        self._since, self._pairs = now, 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let it go on."""
        self._since += time.perf_counter() - self._paused


class PeakMemory(Callback):
    """Logs the peak of memory so far in MiB: `train/peak_memory_mib` of the GPU since the training began, or
    `train/peak_process_memory_mib` of the process on a CPU, over all it has run.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what ran before on the GPU."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log it where it is due."""
        if not _is_logged(trainer, trainer.global_step):
            return
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device) / _MIB
            pl_module.log("train/peak_memory_mib", peak, on_step=True, on_epoch=False, batch_size=1)
        elif resource is not None:
            unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
            pl_module.log("train/peak_process_memory_mib", peak, on_step=True, on_epoch=False, batch_size=1)


def _is_logged(trainer: L.Trainer, step: int) -> bool:
    """Whether the step that ends at this count is one that Lightning logs."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning does not declare it
    return every > 0 and step % every == 0
