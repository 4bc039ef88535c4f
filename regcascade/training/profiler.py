"""Where the time of a training step goes, measured on random images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from regcascade.cascades import Cascade
from regcascade.losses import Objective
from regcascade.registration import Registration
from regcascade.training.memory_estimate import AUTOCAST
from regcascade.types import Size
from regcascade.utils.timing import read_clock

PARTS = ("networks", "warps", "losses", "backward", "optimizer")


@dataclass(frozen=True)
class Profile:
    """Seconds, each the median over repeats.

    Attributes:
        inference: a registration without gradients.
        step: a training step.
        parts: of a step: `networks` forward, `warps` (and all else that a cascade does between networks), `losses`,
            `backward` (with what is recomputed in it), `optimizer`.
        peak: the most bytes of tensors at once on a GPU; None on a CPU, which does not tell.
    """

    inference: float
    step: float
    parts: dict[str, float]
    peak: int | None


@dataclass
class Stopwatch:
    """Seconds by the name of what they were spent on; it waits for a GPU to be done.

    Attributes:
        device: what runs.
        seconds: so far.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
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
    """Run registrations and training steps, one of each uncounted, and time them. The weights change.

    Args:
        cascade: the model, on the device to be measured.
        objective: the loss; its weak supervision is left out.
        optimizer: of the cascade's weights.
        size: sides of the images.
        batch: pairs at a time.
        precision: as Lightning names it; fp16 goes without scaling of the loss, which takes no time.
        repeats: of each, of which the median is taken.
    """
    device = next(cascade.parameters()).device
    moving, fixed = torch.rand(2, batch, 1, *size, device=device)
    forward, steps = [], []
    cascade.eval()
    for _ in range(repeats + 1):
        watch = Stopwatch(device)
        with watch.on("all"), torch.inference_mode(), _autocast(device, precision):
            _registered(cascade, moving, fixed)
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
    """One training step, as Lightning does it."""
    with _autocast(moving.device, precision):
        with watch.on("cascade"), _timed_networks(cascade, watch):
            registration = _registered(cascade, moving, fixed)
            reverse = _registered(cascade, fixed, moving) if objective.both_ways else None
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


def _registered(cascade: Cascade, moving: Tensor, fixed: Tensor) -> Registration:
    """A registration; an affine map that is to come with the pairs is the identity."""
    return cascade(moving, fixed, alignment=torch.eye(4, device=moving.device).expand(len(moving), 4, 4))


@contextmanager
def _timed_networks(cascade: Cascade, watch: Stopwatch) -> Iterator[None]:
    """Add the time of every network, the affine one too, as they run."""
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


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
