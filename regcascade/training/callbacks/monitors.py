"""Measures that are logged beside the losses: gradient norm, pairs per second, peak memory."""

import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from regcascade.types import Batch
from regcascade.utils.memory import MIB
from regcascade.utils.timing import read_clock

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]  # in a module's place


class GradientNorm(Callback):
    """Log `train/gradient_norm`: Euclidean norm over all parameters before clipping, at logged steps only."""

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Log the norm; mixed precision has unscaled the gradients here."""
        if _is_logged(trainer, trainer.global_step + 1):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            pl_module.log("train/gradient_norm", torch.nn.utils.get_total_norm(gradients), on_step=True, on_epoch=False)


class Throughput(Callback):
    """Log `train/pairs_per_second` of all devices since the last logged step, with loading and without validation.

    Lightning's ThroughputMonitor waits for the GPU at every step; this one only at logged steps.
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
        """Count the pairs, and log the rate at a logged step."""
        self._pairs += len(batch["fixed"]) * trainer.world_size
        if _is_logged(trainer, trainer.global_step):
            now = read_clock(pl_module.device)
            _log(pl_module, "train/pairs_per_second", self._pairs / max(now - self._since, 1e-9))
            self._since, self._pairs = now, 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart the clock."""
        self._since += time.perf_counter() - self._paused


class PeakMemory(Callback):
    """Log peak memory in MiB: of the GPU since training began, or on a CPU of the process since it started."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the peak of the GPU."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log the peak at a logged step."""
        if not _is_logged(trainer, trainer.global_step):
            return
        if pl_module.device.type == "cuda":
            _log(pl_module, "train/peak_memory_mib", torch.cuda.max_memory_allocated(pl_module.device) / MIB)
        elif resource is not None:
            unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
            _log(pl_module, "train/peak_process_memory_mib", peak)


def _log(module: L.LightningModule, name: str, value: float) -> None:
    module.log(name, value, on_step=True, on_epoch=False, batch_size=1)


def _is_logged(trainer: L.Trainer, step: int) -> bool:
    """Whether Lightning logs this step."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning does not declare it
    return every > 0 and step % every == 0
