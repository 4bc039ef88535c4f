"""What the processes of one training tell each other; in a single process each of these is trivial."""

from typing import TypeVar

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

T = TypeVar("T")


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is rank 0, also before the processes can talk to each other."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it without declaring it


def gathered(value: T) -> list[T]:
    """The values of all ranks, in their order. Every rank must call it."""
    if count() == 1:
        return [value]
    values: list[T] = [value] * count()
    dist.all_gather_object(values, value)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean over the ranks, without gradients. Every rank must call it."""
    values = values.detach()
    if count() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / count()


def of_first(value: float) -> float:
    """The value of rank 0. Every rank must call it."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
