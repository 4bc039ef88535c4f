"""Exchange values between the processes of one training; without effect in a single process."""

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def count() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Tell whether this is rank 0, also before there is a process group."""
    from lightning.pytorch.utilities import rank_zero_only  # takes seconds to import

    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it without declaring it


def gathered(value: T) -> list[T]:
    """Collect the values of all ranks, in rank order. Every rank must call it."""
    values: list[T] = [value] * count()
    if count() > 1:
        dist.all_gather_object(values, value)
    return values


def mean(values: Tensor) -> Tensor:
    """Average a tensor over the ranks, without gradients. Every rank must call it."""
    total = values.detach().clone()
    if count() > 1:
        dist.all_reduce(total)
    return total / count()


def of_first(value: float) -> float:
    """Take the value of rank 0. Every rank must call it."""
    return gathered(value)[0]
