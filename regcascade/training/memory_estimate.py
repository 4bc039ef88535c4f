"""The memory of a training step, told before it runs: the step is gone through with tensors that have no data."""

import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from regcascade.cascades import Cascade
from regcascade.data.cache import available_memory
from regcascade.losses import Objective
from regcascade.types import Size

AUTOCAST = {"bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training step takes, less the workspace of convolutions and what an allocator leaves unused.

    Attributes:
        weights: parameters and buffers.
        gradients: of the parameters that learn.
        moments: of the optimiser.
        activations: all else at its peak: the images, what is kept for the gradient, what is passed on meanwhile.
    """

    weights: float
    gradients: float
    moments: float
    activations: float

    @property
    def total(self) -> float:
        """All of it: the gradients of the step before are still there while the next one goes forward."""
        return self.weights + self.gradients + self.moments + self.activations

    def plus(self, other: "Footprint", times: float) -> "Footprint":
        """This one and so many times another."""
        return Footprint(
            self.weights + times * other.weights,
            self.gradients + times * other.gradients,
            self.moments + times * other.moments,
            self.activations + times * other.activations,
        )


@dataclass(frozen=True)
class Prediction:
    """Memory against the number of stages: a line through what one stage and three take.

    Three, since with recomputation the peak moves from the forward into the backward pass between one and three.

    Attributes:
        first: with one stage.
        added: half of what the next two add, and so, by this prediction, every further one.
    """

    first: Footprint
    added: Footprint

    def at(self, n: int) -> Footprint:
        """With n stages."""
        return self.first.plus(self.added, float(n - 1))

    def largest_n(self, available: float) -> int:
        """How many stages fit into so many bytes; 0 if not even one does."""
        if available < self.first.total:
            return 0
        return 1 + math.floor((available - self.first.total) / self.added.total)


@dataclass(frozen=True)
class Step:
    """A training step to be estimated.

    Attributes:
        build: makes the cascade of n stages.
        objective: the loss; its weak supervision is left out.
        size: sides of the volumes.
        batch: pairs at a time.
        precision: as Lightning names it.
        recompute: see `Cascade`.
        moments: how many numbers the optimiser keeps for a weight.
    """

    build: Callable[[int], Cascade]
    objective: Objective
    size: Size
    batch: int = 1
    precision: str = "32-true"
    recompute: str = "none"
    moments: int = 2

    def footprint(self, n: int) -> Footprint:
        """What it takes with n stages, in about a second whatever the size."""
        return self._counted(n, self.run)

    def prediction(self) -> Prediction:
        """What it takes against n, from n = 1 and 3."""
        one = self.footprint(1)
        added = self.footprint(3).plus(one, -1.0)
        return Prediction(one, added.plus(added, -0.5))

    def loss(self, cascade: Cascade) -> Tensor:
        """The loss of a cascade, where its weights are, on random images."""
        device = next(cascade.parameters()).device
        moving, fixed = (torch.rand(self.batch, 1, *self.size, device=device) for _ in range(2))
        alignment = torch.eye(4, device=device).expand(self.batch, 4, 4)
        dtype = AUTOCAST.get(self.precision)
        with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            registration = cascade(moving, fixed, alignment=alignment)
            back = cascade(fixed, moving, alignment=alignment) if self.objective.both_ways else None
            return self.objective(registration, fixed, reverse=back)["loss"]

    def run(self, cascade: Cascade) -> None:
        """The loss of a cascade and its gradient."""
        self.loss(cascade).backward()

    def _counted(self, n: int, task: Callable[[Cascade], Any]) -> Footprint:
        # The training that follows must draw the numbers it would have drawn without.
        with torch.random.fork_rng(devices=[]), FakeTensorMode(allow_non_fake_inputs=True):
            cascade = self.build(n).train()
            cascade.recompute = self.recompute
            learning = [parameter for parameter in cascade.parameters() if parameter.requires_grad]
            weights = [*cascade.parameters(), *cascade.buffers()]
            live = LiveMemory(weights)
            handles = [parameter.register_post_accumulate_grad_hook(live.leave_out_gradient) for parameter in learning]
            with live:
                task(cascade)
            for handle in handles:
                handle.remove()
        gradients = _bytes(learning)
        return Footprint(_bytes(weights), gradients, self.moments * gradients, float(live.peak))


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while they live; a view is no tensor of its own.

    Args:
        known: tensors that were there before and do not count.

    Attributes:
        now: bytes that live now.
        peak: the most that lived at once.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it makes."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def leave_out_gradient(self, parameter: Tensor) -> None:
        """Count the gradient of a parameter no longer."""
        if parameter.grad is not None:
            self._gone(parameter.grad.untyped_storage()._cdata)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def free_memory(device: torch.device) -> float:
    """Bytes that a training can still take on a device; on a CPU what the machine, or its container, has left."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def _bytes(tensors: Sequence[Tensor]) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
