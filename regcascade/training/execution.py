"""Options that change how a training runs and not what it learns, and checks of what a device supports."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from textwrap import shorten
from typing import Any, Literal

import torch
from torch import nn

from regcascade.cascades import Cascade
from regcascade.types import Size
from regcascade.utils.half_precision import unsound_convolution
from regcascade.utils.precision import AUTOCAST
from regcascade.utils.registry import check_choices, check_options

_NUMBERS: Mapping[str, tuple[Callable[[float], bool], str]] = {  # of Lightning's Trainer
    "max_steps": (lambda value: value == -1 or value >= 1, "counts training steps, 1 or more, or is -1 for no limit"),
    "max_epochs": (lambda value: value == -1 or value >= 1, "counts epochs, 1 or more, or is -1 for no limit"),
    "val_check_interval": (
        lambda value: 0 < value <= 1 or (isinstance(value, int) and value > 1),
        "counts batches between validations, 1 or more, or is a part of an epoch, above 0.0 and up to 1.0",
    ),
    "accumulate_grad_batches": (lambda value: value >= 1, "counts the batches of a training step, 1 or more"),
    "gradient_clip_val": (lambda value: value >= 0, "is the largest norm of a gradient, above 0, or null for any"),
}


@dataclass(frozen=True)
class Execution:
    """Options of the group `trainer` beside those of Lightning's Trainer.

    Attributes:
        recompute: `none` stores all activations; `stage` stores the result of each stage and runs it again for its
            gradient.
        compile: compile the networks with `torch.compile`, once per size and mode.
        channels_last: store convolution weights, and so feature maps, in PyTorch's `channels_last_3d` layout.
    """

    recompute: Literal["none", "stage"] = "none"
    compile: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        check_choices("trainer", self)

    def apply(self, cascade: Cascade) -> None:
        """Apply these options to a cascade; the names of its weights stay."""
        cascade.recompute = self.recompute
        if self.channels_last:
            for module in cascade.modules():
                if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch forgets it
        if self.compile:
            for net in cascade.nets:
                net.compile()  # in place, unlike torch.compile(net), so that weights keep their names


def split_trainer(options: Mapping[str, Any]) -> tuple[Execution, dict[str, Any]]:
    """Split the options of the group `trainer` into `Execution`, which is checked, and those of Lightning's Trainer."""
    names = {field.name for field in fields(Execution)}
    ours = {key: value for key, value in options.items() if key in names}
    check_options("trainer", ours, Execution)
    return Execution(**ours), {key: value for key, value in options.items() if key not in names}


def set_execution(cascade: Cascade, trainer: Mapping[str, Any], size: Size, batch: int) -> None:
    """Apply the options of the group `trainer` to a cascade; raise ValueError if the device does not support one.

    Half precision is checked for volumes of this size, and `batch` pairs at a time.
    """
    execution, _ = split_trainer(trainer)
    device, precision = likely_device(trainer.get("accelerator", "auto")), trainer.get("precision")
    check_precision(precision, device)
    if execution.compile:
        check_compiles(device)
    execution.apply(cascade)
    check_half_precision(cascade, size, batch, precision, device)


def check_numbers(trainer: Mapping[str, Any]) -> None:
    """Raise ValueError for a number with which Lightning's Trainer would train nothing."""
    for key, (fits, wanted) in _NUMBERS.items():
        value = trainer.get(key)
        if isinstance(value, int | float) and not fits(value):
            raise ValueError(f"trainer.{key}={value}: it {wanted}.")


def likely_device(accelerator: Any) -> torch.device:
    """Predict the device that Lightning chooses for `trainer.accelerator`."""
    on_gpu = str(accelerator) in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def check_precision(precision: int | str | None, device: torch.device) -> None:
    """Raise ValueError if a device does not support a precision, or a cascade cannot train in it."""
    name = str(precision)
    if name in ("16-true", "bf16-true"):
        raise ValueError(
            f"trainer.precision={name} would round the flows themselves; set trainer.precision="
            f"{name.removesuffix('true')}mixed, which keeps flows, warps and losses in float32."
        )
    if name.startswith("16") and device.type == "cpu":
        raise ValueError(
            f"trainer.precision={name}: a CPU has no fp16 training. Set trainer.precision=bf16-mixed, or 32-true."
        )
    on_gpu = name.startswith("bf16") and device.type == "cuda"
    if on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(
            f"trainer.precision={name}: {torch.cuda.get_device_name(device)} has no bf16. Set "
            "trainer.precision=16-mixed, or 32-true."
        )


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of each part at the end."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def check_half_precision(
    cascade: Cascade, size: Size, batch: int, precision: int | str | None, device: torch.device
) -> None:
    """Raise ValueError if this CPU's half-precision convolutions are wrong at the map sizes of a training.

    Full precision and GPUs are not checked.
    """
    dtype = AUTOCAST.get(str(precision))
    if dtype is None or device.type != "cpu":
        return

    def run() -> None:
        moving, fixed = (torch.rand(batch, 1, *size) for _ in range(2))
        # Eager, as tensors without data cannot be compiled; evaluated, as batch statistics must not change.
        with torch.autocast("cpu", dtype=dtype), torch.compiler.set_stance("force_eager"), evaluated(cascade):
            cascade.register_images(moving, fixed)

    if fault := unsound_convolution(run, dtype, device):
        raise ValueError(
            f"trainer.precision={precision}: on this CPU {fault}, so that training would use wrong values. Set "
            "trainer.precision=32-true, or a larger data.size where the map is that small."
        )


def check_compiles(device: torch.device) -> None:
    """Raise ValueError if `torch.compile` does not work on a device, by compiling one line."""
    try:
        # Without caches, which would hide a missing compiler.
        with torch.compiler.config.patch(force_disable_caches=True):  # type: ignore[attr-defined]  # added at run time
            torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # a missing compiler, missing headers and a missing Triton each raise their own
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ValueError(
            f"trainer.compile=true: PyTorch cannot compile for {device.type} here ({shorten(lines[0], 200)}). It needs "
            "a C++ compiler on a CPU (g++, or the one that CXX names) and Triton on a GPU: install it, or set "
            "trainer.compile=false."
        ) from error
