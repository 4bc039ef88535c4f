"""Check on a device the half-precision convolutions that a model runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCE = 0.03  # relative to float32; rounding to bf16 alone gives 0.002 to 0.005
REPEATS = 2**-7  # how far equal calls may differ, relative to the largest value: one rounding of bf16
LARGEST_SIDE = 9  # longer maps are cut to this or one less: the known faults occur at sides of 1, 2 or 4 voxels
CALLS = 3  # of each convolution: uninitialised memory is wrong only now and then
NAMES = ("output", "gradient of its input", "gradient of its weights", "gradient of its bias")


class Convolution(NamedTuple):
    """One call of a convolution in half precision.

    Attributes:
        shapes: of the input, the weight and, if there is one, the bias.
        learns: which of them get gradients.
        layouts: their memory formats.
        settings: stride, padding, dilation, transposed, output padding, groups, as `torch.convolution` takes them.
    """

    shapes: tuple[tuple[int, ...], ...]
    learns: tuple[bool, ...]
    layouts: tuple[torch.memory_format, ...]
    settings: tuple[Any, ...]

    def __str__(self) -> str:
        kind = "transposed convolution" if self.settings[3] else "convolution"
        sides, kernel = ("x".join(map(str, shape[2:])) for shape in self.shapes[:2])
        return f"a {kernel} {kind} of {self.shapes[0][1]} feature maps of {sides} voxels"


def unsound_convolution(run: Callable[[], object], dtype: torch.dtype, device: torch.device) -> str | None:
    """Say which half-precision convolution of a model is wrong on a device; None if all are right.

    Each convolution that `run` makes in `dtype` is called a few times on random numbers at its map size, with the
    backward passes that training takes. The results must agree with float32 and with each other. On some CPUs,
    PyTorch 2.13's bf16 kernels return uninitialised memory where a side of the map is 1 or 2.

    Args:
        run: runs the model once, as training does; called without data if the model allows that.
        dtype: `torch.bfloat16` or `torch.float16`.
        device: where the model will run.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), _Recorder(dtype) as recorder:
                run()
        except Exception:  # a user's network may need data
            with _Recorder(dtype) as recorder:
                run()
        for convolution in sorted(recorder.found, key=lambda one: (one.shapes[0][2:], one.shapes[1], one.learns)):
            if fault := _fault(convolution, dtype, device):
                return f"{convolution} {fault}"
    return None


class _Recorder(TorchDispatchMode):
    """Collects the convolutions in a type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.found: set[Convolution] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record it if it is a convolution."""
        if function is torch.ops.aten.convolution.default and args[0].dtype == self.dtype:
            volume, weight, bias, *settings = args
            tensors = [each for each in (volume, weight, bias) if each is not None]
            sides = (min(side, LARGEST_SIDE - (side - LARGEST_SIDE) % 2) for side in volume.shape[2:])
            self.found.add(
                Convolution(
                    ((*volume.shape[:2], *sides), *(tuple(each.shape) for each in tensors[1:])),
                    tuple(torch.is_grad_enabled() and each.requires_grad for each in tensors),
                    tuple(_layout(each) for each in tensors),
                    tuple(tuple(each) if isinstance(each, list) else each for each in settings),
                )
            )
        return function(*args, **(kwargs or {}))


def _layout(tensor: Tensor) -> torch.memory_format:
    last = tensor.dim() == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last and not tensor.is_contiguous() else torch.contiguous_format


def _fault(convolution: Convolution, dtype: torch.dtype, device: torch.device) -> str | None:
    """Describe what a convolution gets wrong, and by how much."""
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(shape, generator=generator).to(device, dtype).contiguous(memory_format=layout)
        for shape, layout in zip(convolution.shapes, convolution.layouts, strict=True)
    ]
    expected = _called(convolution, [one.float() for one in inputs])
    first: dict[str, Tensor] = {}
    for _ in range(CALLS):
        for power in range(8, 21, 2):  # fill memory that is handed out next with NaN, which uninitialised memory shows
            torch.full((2**power,), float("nan"), device=device)
        for name, result in _called(convolution, inputs).items():
            wanted, before = expected[name], first.setdefault(name, result)
            largest = wanted.abs().max().clamp(min=1e-6)
            error = float((result.float() - wanted).norm() / wanted.norm().clamp(min=1e-6))
            spread = float((result.float() - before.float()).abs().max() / largest)
            kind = str(dtype).removeprefix("torch.")
            if not error <= TOLERANCE:  # NaN is not, either
                return f"gives a wrong {name} in {kind} (relative error {error:.2g})"
            if not spread <= REPEATS:
                return f"gives another {name} in {kind} at each call (by {spread:.2g} of the largest value)"
    return None


@torch.enable_grad()
def _called(convolution: Convolution, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Compute the output of a convolution and the gradients of its inputs that learn."""
    given = [one.detach().requires_grad_(learns) for one, learns in zip(inputs, convolution.learns, strict=True)]
    volume, weight, *bias = given
    output = torch.convolution(volume, weight, bias[0] if bias else None, *convolution.settings)
    results = {NAMES[0]: output.detach()}
    learning = {name: one for name, one in zip(NAMES[1:], given, strict=False) if one.requires_grad}
    if learning:
        # Exact in half precision, and of one sign: sums of it do not cancel.
        towards = (torch.arange(output.numel(), device=output.device) % 7 + 4) / 8
        gradients = torch.autograd.grad(output, list(learning.values()), towards.to(output).view_as(output))
        results |= dict(zip(learning, gradients, strict=True))
    return results
