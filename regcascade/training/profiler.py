"""Time of a training step and of its parts, measured on random images."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from regcascade.cascades import Cascade
from regcascade.losses import Objective
from regcascade.types import Size
from regcascade.utils.precision import mixed_precision
from regcascade.utils.timing import read_clock

PARTS = ("networks", "warps", "losses", "backward", "optimizer")


@dataclass(frozen=True)
class Profile:
    """Median seconds over the repeats.

    Parts of a step are `networks` (forward), `warps` (and the rest of the cascade), `losses`, `backward` (with
    recomputation) and `optimizer`.
    """

    inference: float  # registration without gradients
    step: float
    parts: dict[str, float]
    peak: int | None  # bytes allocated on a GPU; None on a CPU


class Stopwatch:
    """Seconds by name; waits for a GPU to finish."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = read_clock(self.device)
        yield
        self.seconds[name] += read_clock(self.device) - start


def profile(
    cascade: Cascade,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    size: Size,
    batch: int = 1,
    precision: str = "32-true",
    repeats: int = 3,
    r: int = 1,
) -> Profile:
    """Time registrations and training steps on the cascade's device, after one of each that does not count.

    Weak supervision is left out, and the loss is not scaled for fp16, which takes no time. Changes the weights.
    """
    device = next(cascade.parameters()).device
    moving, fixed = torch.rand(2, batch, 1, *size, device=device)
    inference, steps = [], []
    cascade.eval()
    for _ in range(repeats + 1):
        watch = Stopwatch(device)
        with watch.on("all"), torch.inference_mode(), mixed_precision(device, precision):
            cascade.register_images(moving, fixed, r)
        inference.append(watch.seconds["all"])
    cascade.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats + 1):
        watch = Stopwatch(device)
        with watch.on("step"):
            with mixed_precision(device, precision):
                with watch.on("cascade"), _timed_networks(cascade, watch):
                    registration = cascade.register_images(moving, fixed, r)
                    reverse = cascade.register_images(fixed, moving, r) if objective.both_ways else None
                watch.seconds["warps"] = watch.seconds["cascade"] - watch.seconds["networks"]
                with watch.on("losses"):
                    loss = objective(registration, fixed, reverse=reverse)["loss"]
            del registration, reverse
            with watch.on("optimizer"):
                optimizer.zero_grad()
            with watch.on("backward"):
                loss.backward()
            with watch.on("optimizer"):
                optimizer.step()
        steps.append(watch.seconds)
    parts = {name: median(seconds[name] for seconds in steps[1:]) for name in PARTS}
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Profile(median(inference[1:]), median(seconds["step"] for seconds in steps[1:]), parts, peak)


@contextmanager
def _timed_networks(cascade: Cascade, watch: Stopwatch) -> Iterator[None]:
    """Add the forward time of every network, the affine one included."""
    started: list[float] = []

    def stop(*_: object) -> None:
        watch.seconds["networks"] += read_clock(watch.device) - started.pop()

    handles = []
    for net in [*cascade.nets, *([cascade.affine] if cascade.affine is not None else [])]:
        handles.append(net.register_forward_pre_hook(lambda *_: started.append(read_clock(watch.device))))
        handles.append(net.register_forward_hook(stop))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
