"""Estimate of the memory of a training step, counted with fake tensors, which have shapes and no data."""

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
    """Bytes of a training step, without the workspace of convolutions and unused blocks of the allocator."""

    weights: float  # parameters and buffers
    gradients: float  # of trained parameters
    moments: float  # state of the optimiser
    activations: float  # peak of everything else: images, tensors for the backward pass, intermediate results

    @property
    def total(self) -> float:
        """Sum of all parts; gradients stay allocated during the next forward pass."""
        return self.weights + self.gradients + self.moments + self.activations


@dataclass(frozen=True)
class Prediction:
    """Total bytes as a linear function of the number of stages n."""

    first: float  # bytes with one stage
    added: float  # bytes of each further stage

    def at(self, n: int) -> float:
        """Predict the bytes of n stages."""
        return self.first + (n - 1) * self.added

    def largest_n(self, available: float) -> int:
        """Compute the number of stages that fit into `available` bytes; 0 if none does."""
        return 0 if available < self.first else 1 + math.floor((available - self.first) / self.added)


@dataclass(frozen=True)
class Step:
    """Training step to estimate, without weak supervision."""

    build: Callable[[int], Cascade]  # builds the cascade of n stages
    objective: Objective
    size: Size
    batch: int = 1  # pairs
    precision: str = "32-true"  # Lightning's name
    recompute: str = "none"  # see `Execution`
    moments: int = 2  # numbers that the optimiser stores per weight
    r: int = 1  # how often each network is applied

    def footprint(self, n: int) -> Footprint:
        """Count the bytes of a step with n stages, in about a second at any size."""
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
        """Fit a line through n = 1 and n = 3; at n = 2 the peak may lie in another pass than at n = 3."""
        one, three = (self.footprint(n).total for n in (1, 3))
        return Prediction(one, (three - one) / 2)

    def run(self, cascade: Cascade) -> None:
        """Run the forward and backward pass on random images, on the device of the weights."""
        device = next(cascade.parameters()).device
        moving, fixed = (torch.rand(self.batch, 1, *self.size, device=device) for _ in range(2))
        with mixed_precision(device, self.precision):
            registration = cascade.register_images(moving, fixed, self.r)
            reverse = cascade.register_images(fixed, moving, self.r) if self.objective.both_ways else None
            loss = self.objective(registration, fixed, reverse=reverse)["loss"]
        loss.backward()


class LiveMemory(TorchDispatchMode):
    """Count the bytes of all tensors made in this context, while they live: `now`, and their maximum `peak`.

    A view shares the bytes of its base. `known` tensors do not count.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and (key := (storage := tensor.untyped_storage())._cdata) not in self._sizes:
                self._sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, key)
        return result

    def leave_out_gradient(self, parameter: Tensor) -> None:
        """Do not count the gradient of a parameter."""
        if parameter.grad is not None:
            self._gone(parameter.grad.untyped_storage()._cdata)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def free_memory(device: torch.device) -> float:
    """Bytes free on a device; on a CPU those of the machine or its container."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


def _bytes(tensors: Sequence[Tensor]) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
