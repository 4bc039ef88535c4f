"""Tensor aliases, the batch, and the convention of resolution levels.

Images are `(B, 1, X, Y, Z)` float32 in 0..1, axes in the file's array order. Labels have the same layout and
hold integers, 0 being background. A flow is `(B, 3, X, Y, Z)` in voxels of its own grid: channel a displaces
along array axis a, and `moved(p) = moving(p + flow(p))`. Points are `(B, K, 3)` in voxels, NaN where missing.

Level l is the image at 1 / 2^l resolution: 0 full, 1 half, 2 quarter (DR-Net's l4, l3, l2). Voxel i of
level l sits at `2^l i + (2^l - 1) / 2` of the full grid, and a side of S voxels has `ceil(S / 2^l)` there.
"""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Image = Float[Tensor, "batch 1 x y z"]
Labels = Int[Tensor, "batch 1 x y z"]
Volume = Shaped[Tensor, "batch channels x y z"]
Flow = Float[Tensor, "batch 3 x y z"]
LevelFlow = Float[Tensor, "batch 3 _ _ _"]  # on the grid of a level, beside tensors of other levels
Points = Float[Tensor, "batch k 3"]
Matrix = Float[Tensor, "batch 3 3"]
Vector = Float[Tensor, "batch 3"]
Homogeneous = Float[Tensor, "batch 4 4"]
Scalars = Float[Tensor, " batch"]
Size = tuple[int, int, int]


class Batch(TypedDict):
    """Pairs of scans as the data module yields them; labels, points and alignments only if every scan has them."""

    fixed: Image
    moving: Image
    fixed_labels: NotRequired[Labels]
    moving_labels: NotRequired[Labels]
    fixed_points: NotRequired[Points]
    moving_points: NotRequired[Points]
    alignment: NotRequired[Homogeneous]  # from voxels of the fixed scan to those of the moving one
    fixed_spacing: Vector  # mm per voxel along each array axis
    moving_spacing: Vector
    fixed_name: list[str]
    moving_name: list[str]


def swapped(batch: Batch) -> Batch:
    """Swap fixed and moving in every pair."""
    other = {"fixed": "moving", "moving": "fixed"}
    turned: dict[str, Any] = {}
    for key, value in batch.items():
        role, underscore, part = key.partition("_")
        turned[other.get(role, role) + underscore + part] = value
    if "alignment" in batch:
        turned["alignment"] = torch.linalg.inv(batch["alignment"])
    return cast(Batch, turned)


def size_of(volume: Tensor) -> Size:
    """Return the three spatial sides of a `(B, C, X, Y, Z)` tensor."""
    x, y, z = volume.shape[-3:]
    return int(x), int(y), int(z)


def level_size(size: Sequence[int], level: int) -> Size:
    """Compute the sides at a level of a grid with full sides `size`: `ceil(S / 2^level)`.

    >>> level_size((16, 17, 20), level=2)
    (4, 5, 5)
    """
    x, y, z = (-(-side // 2**level) for side in size)
    return x, y, z
