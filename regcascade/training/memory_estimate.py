"""Memory of a training step, counted without running it: tensors have shapes and no data."""

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
from regcascade.utils.precision import mixed_precision


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training step takes, without the workspace of convolutions and what an allocator leaves unused.

    Attributes:
        weights: parameters and buffers.
        gradients: of the parameters that learn.
        moments: of the optimiser.
        activations: peak of everything else: images, what the backward pass needs, intermediate results.
    """

    weights: float
    gradients: float
    moments: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of all parts; the previous step's gradients are still there while the next one goes forward."""
        return self.weights + self.gradients + self.moments + self.activations


@dataclass(frozen=True)
class Prediction:
    """Total bytes against the number of stages: a line through what one stage and three take.

    Three, since with recomputation the peak moves from the forward into the backward pass between one and three.

    Attributes:
        first: bytes with one stage.
        added: bytes of each further stage.
    """

    first: float
    added: float

    def at(self, n: int) -> float:
        """Predict the bytes with n stages."""
        return self.first + (n - 1) * self.added

    def largest_n(self, available: float) -> int:
        """Find how many stages fit into so many bytes; 0 if not even one does."""
        return 0 if available < self.first else 1 + math.floor((available - self.first) / self.added)


@dataclass(frozen=True)
class Step:
    """Training step to be estimated.

    Attributes:
        build: builds the cascade of n stages.
        objective: loss; its weak supervision is left out.
        size: sides of the volumes.
        batch: pairs at a time.
        precision: as Lightning names it.
        recompute: see `Cascade`.
        moments: numbers that the optimiser keeps for each weight.
    """

    build: Callable[[int], Cascade]
    objective: Objective
    size: Size
    batch: int = 1
    precision: str = "32-true"
    recompute: str = "none"
    moments: int = 2

    def footprint(self, n: int) -> Footprint:
        """Count what a step with n stages takes; about a second, whatever the size."""
        with torch.random.fork_rng(devices=[]), FakeTensorMode(allow_non_fake_inputs=True):
            cascade = self.build(n).train()
            cascade.recompute = self.recompute
            learning = [parameter for parameter in cascade.parameters() if parameter.requires_grad]
            weights = [*cascade.parameters(), *cascade.buffers()]
            live = LiveMemory(weights)
            for parameter in learning:
                parameter.register_post_accumulate_grad_hook(live.leave_out_gradient)
            with live:
                self.run(cascade)
        gradients = _bytes(learning)
        return Footprint(_bytes(weights), gradients, self.moments * gradients, float(live.peak))

    def prediction(self) -> Prediction:
        """Predict the bytes against n from n = 1 and n = 3."""
        one, three = (self.footprint(n).total for n in (1, 3))
        return Prediction(one, (three - one) / 2)

    def run(self, cascade: Cascade) -> None:
        """Compute the loss of a cascade on random images, and its gradient, on the device of the weights."""
        device = next(cascade.parameters()).device
        moving, fixed = (torch.rand(self.batch, 1, *self.size, device=device) for _ in range(2))
        with mixed_precision(device, self.precision):
            registration = cascade.register_images(moving, fixed)
            reverse = cascade.register_images(fixed, moving) if self.objective.both_ways else None
            loss = self.objective(registration, fixed, reverse=reverse)["loss"]
        loss.backward()


class LiveMemory(TorchDispatchMode):
    """Count the bytes of the tensors that operations make, while they live; views share the bytes of their base.

    Args:
        known: earlier tensors, which do not count.

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
        """Run an operation and count what it makes."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def leave_out_gradient(self, parameter: Tensor) -> None:
        """Stop counting the gradient of a parameter."""
        if parameter.grad is not None:
            self._gone(parameter.grad.untyped_storage()._cdata)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def free_memory(device: torch.device) -> float:
    """Bytes free on a device; on a CPU what the machine, or its container, has left."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


def _bytes(tensors: Sequence[Tensor]) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
