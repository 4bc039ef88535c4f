"""Whether a device's half-precision convolutions can be trusted: asked of those that a model runs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCE = 0.03  # relative; rounding to bf16 alone gives 0.002 to 0.005
LARGEST_SIDE = 24  # longer maps are cut to this: the known faults belong to sides of one or two voxels
CALLS = 3  # of each convolution, since memory that is not initialised is wrong only now and then
NAMES = ("output", "gradient of its input", "gradient of its weights", "gradient of its bias")


class Convolution(NamedTuple):
    """One call of a convolution in half precision: the shapes of its tensors, and its settings.

    Attributes:
        input, weight: shapes.
        bias: whether there is one.
        layout: of the input and of the weight in memory.
        settings: stride, padding, dilation, transposed, output padding, groups, as `torch.convolution` takes them.
    """

    input: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    layout: tuple[torch.memory_format, torch.memory_format]
    settings: tuple[Any, ...]

    def __str__(self) -> str:
        kind = "transposed convolution" if self.settings[3] else "convolution"
        kernel, sides = ("x".join(map(str, shape[2:])) for shape in (self.weight, self.input))
        return f"a {kernel} {kind} of {self.input[1]} feature maps of {sides} voxels"


def unsound_convolution(
    run: Callable[[], object], dtype: torch.dtype, device: torch.device, gradients: bool = True
) -> str | None:
    """Say which half-precision convolution of a model disagrees with float32 on a device; None if all agree.

    Each convolution that `run` makes in `dtype` is called a few times on random numbers, forward and backward, at the
    map size it has there. Some CPUs need this: PyTorch 2.13's bf16 kernels return uninitialised memory as the gradient
    of the weights where a side of the map is 1 or 2.

    Args:
        run: runs the model once, as training does; it is called without data where the model allows that.
        dtype: `torch.bfloat16` or `torch.float16`.
        device: where the model will run.
        gradients: whether the backward passes matter too.
    """
    with torch.random.fork_rng(devices=[]):
        for convolution in sorted(_convolutions(run, dtype), key=lambda one: one.input[2:]):
            if fault := _fault(convolution, dtype, device, NAMES if gradients else NAMES[:1]):
                return f"{convolution} gives a wrong {fault}"
    return None


def _convolutions(run: Callable[[], object], dtype: torch.dtype) -> set[Convolution]:
    """The different convolutions in `dtype` that a model runs."""
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), _Recorder(dtype) as recorder:
            run()
    except Exception:  # a network of a user's own may do what tensors without data cannot: run it with data
        with torch.no_grad(), _Recorder(dtype) as recorder:
            run()
    return recorder.found


class _Recorder(TorchDispatchMode):
    """Notes the convolutions in a type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.found: set[Convolution] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note it if it is a convolution."""
        if function is torch.ops.aten.convolution.default and args[0].dtype == self.dtype:
            volume, weight, bias, *settings = args
            sides = (min(side, LARGEST_SIDE) for side in volume.shape[2:])
            self.found.add(
                Convolution(
                    (*volume.shape[:2], *sides),
                    tuple(weight.shape),
                    bias is not None,
                    (_layout(volume), _layout(weight)),
                    tuple(tuple(each) if isinstance(each, list) else each for each in settings),
                )
            )
        return function(*args, **(kwargs or {}))


def _layout(tensor: Tensor) -> torch.memory_format:
    last = tensor.dim() == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last and not tensor.is_contiguous() else torch.contiguous_format


def _fault(convolution: Convolution, dtype: torch.dtype, device: torch.device, names: Sequence[str]) -> str | None:
    """Which of the named results a convolution gets wrong, and by how much."""
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: tuple[int, ...], layout: torch.memory_format = torch.contiguous_format) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype).contiguous(memory_format=layout)

    inputs = [drawn(shape, layout) for shape, layout in zip(convolution[:2], convolution.layout, strict=True)]
    if convolution.bias:
        channels = convolution.weight[1] * convolution.settings[5] if convolution.settings[3] else convolution.weight[0]
        inputs.append(drawn((channels,)))
    expected = _called(convolution, [one.float() for one in inputs])
    for _ in range(CALLS):
        _leave_rubbish(device)
        for name, result, wanted in zip(names, _called(convolution, inputs), expected, strict=False):
            error = float((result.float() - wanted).norm() / wanted.norm().clamp(min=1e-6))
            if not error <= TOLERANCE:  # NaN is not, either
                return f"{name} in {str(dtype).removeprefix('torch.')} here (relative error {error:.2g})"
    return None


def _called(convolution: Convolution, inputs: list[Tensor]) -> list[Tensor]:
    """The output of a convolution, and the gradients of all it takes.

    The gradient of the output varies, but not in sign, so that no sum of it nearly cancels.
    """
    given = [one.detach().requires_grad_() for one in inputs]
    bias = given[2] if convolution.bias else None
    output = torch.convolution(given[0], given[1], bias, *convolution.settings)
    towards = (torch.arange(output.numel(), device=output.device) % 7 + 4) / 8  # exact in half precision
    return [output.detach(), *torch.autograd.grad(output, given, towards.to(output).view_as(output))]


def _leave_rubbish(device: torch.device) -> None:
    """Fill memory that is handed out next with NaN, which uninitialised memory then shows."""
    for power in range(8, 21, 2):
        torch.full((2**power,), float("nan"), device=device)
