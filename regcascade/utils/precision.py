"""Float32 for loss statistics, and autocast by the names of Lightning's precisions."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

AUTOCAST = {"bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Turn autocast off and yield the tensors in float32, or float64 if they are.

    Every loss computes in this context: sixteen bits cannot hold a variance over two million voxels.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(at_least_float32(tensor) for tensor in tensors)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32 unless it is float32 or float64."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """Autocast as Lightning's Trainer does for a precision; disabled for those not in `AUTOCAST`."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
