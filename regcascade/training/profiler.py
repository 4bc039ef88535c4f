"""Time of a training step and of its parts, measured on random images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from regcascade.cascades import Cascade
from regcascade.losses import Objective
from regcascade.types import Size
from regcascade.utils.precision import mixed_precision
from regcascade.utils.timing import read_clock

PARTS = ("networks", "warps", "losses", "backward", "optimizer")


@dataclass(frozen=True)
class Profile:
    """Seconds, each the median over repeats.

    Attributes:
        inference: of a registration without gradients.
        step: of a training step.
        parts: of a step: `networks` forward, `warps` (and what else a cascade does between networks), `losses`,
            `backward` (with what it recomputes), `optimizer`.
        peak: largest number of bytes of tensors on a GPU; None on a CPU.
    """

    inference: float
    step: float
    parts: dict[str, float]
    peak: int | None


@dataclass
class Stopwatch:
    """Seconds by name of what they were spent on; it waits for a GPU to finish.

    Attributes:
        device: that runs.
        seconds: so far, by name.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = read_clock(self.device)
        yield
        self.add(name, read_clock(self.device) - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a name's."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def profile(
    cascade: Cascade,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    size: Size,
    batch: int = 1,
    precision: str = "32-true",
    repeats: int = 3,
) -> Profile:
    """Time registrations and training steps; the first of each does not count. The weights change.

    Args:
        cascade: model, on the device to be measured.
        objective: loss; its weak supervision is left out.
        optimizer: of the cascade's weights.
        size: sides of the images.
        batch: pairs at a time.
        precision: as Lightning names it; for fp16 the loss is not scaled, which takes no time.
        repeats: of each; the median counts.
    """
    device = next(cascade.parameters()).device
    moving, fixed = torch.rand(2, batch, 1, *size, device=device)
    forward, steps = [], []
    cascade.eval()
    for _ in range(repeats + 1):
        watch = Stopwatch(device)
        with watch.on("all"), torch.inference_mode(), mixed_precision(device, precision):
            cascade.register_images(moving, fixed)
        forward.append(watch.seconds["all"])
    cascade.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats + 1):
        watch = Stopwatch(device)
        with watch.on("step"):
            _step(cascade, objective, optimizer, moving, fixed, precision, watch)
        steps.append(watch.seconds)
    counted = steps[1:]
    parts = {name: median(seconds.get(name, 0.0) for seconds in counted) for name in PARTS}
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Profile(median(forward[1:]), median(seconds["step"] for seconds in counted), parts, peak)


def _step(
    cascade: Cascade,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    moving: Tensor,
    fixed: Tensor,
    precision: str,
    watch: Stopwatch,
) -> None:
    """Run one training step as Lightning does."""
    with mixed_precision(moving.device, precision):
        with watch.on("cascade"), _timed_networks(cascade, watch):
            registration = cascade.register_images(moving, fixed)
            reverse = cascade.register_images(fixed, moving) if objective.both_ways else None
        watch.add("warps", watch.seconds["cascade"] - watch.seconds.get("networks", 0.0))
        with watch.on("losses"):
            loss = objective(registration, fixed, reverse=reverse)["loss"]
    del registration, reverse
    with watch.on("optimizer"):
        optimizer.zero_grad()
    with watch.on("backward"):
        loss.backward()
    with watch.on("optimizer"):
        optimizer.step()


@contextmanager
def _timed_networks(cascade: Cascade, watch: Stopwatch) -> Iterator[None]:
    """Add the time of every network as it runs, the affine one too."""
    started: list[float] = []
    handles, device = [], watch.device
    for net in [*cascade.nets, *([cascade.affine] if cascade.affine is not None else [])]:
        handles.append(net.register_forward_pre_hook(lambda *_: started.append(read_clock(device))))
        handles.append(net.register_forward_hook(lambda *_: watch.add("networks", read_clock(device) - started.pop())))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
