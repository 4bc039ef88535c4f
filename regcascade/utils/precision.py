"""The precision of loss statistics: float32 whatever autocast says, float64 where the caller wants it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Turn autocast off and hand the tensors back as float32, float64 ones as they are.

    A variance over two million voxels does not survive sixteen bits, so every loss computes inside of this.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(at_least_float32(tensor) for tensor in tensors)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself if it is float32 or float64, otherwise its float32 copy."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
