"""Flips of whole pairs."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation, check_number, uniform
from regcascade.types import Batch, Homogeneous, Points, Volume, size_of

VOLUMES = {"fixed", "moving", "fixed_labels", "moving_labels"}
ALIGNMENT = "alignment"
POINTS = {"fixed_points", "moving_points"}


@AUGMENTATIONS.register("flip")
class FlipAugmentation(Augmentation):
    """Turns the order of the voxels along array axes around, in both scans of a pair alike, their alignment with them.

    What corresponds before corresponds after. A point p of an axis of S voxels goes to `S - 1 - p`. Labels keep their
    values: the left kidney of a flipped scan lies on the right and is still called left.

    Args:
        axes: the array axes that may be flipped, of 0, 1 and 2.
        probability: of each of them, drawn by itself and anew for every pair.
    """

    def __init__(self, axes: Sequence[int] = (0, 1, 2), probability: float = 0.5) -> None:
        self.axes = _check_axes(axes)
        self.probability = check_number("probability", probability, 0.0, 1.0)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Flip images, labels and points of both scans."""
        chosen = uniform((len(batch["fixed"]), 3), batch["fixed"], generator) < self.probability
        size = size_of(batch["fixed"])  # that of both scans
        changed: dict[str, Any] = dict(batch)
        for axis in self.axes:
            for key in VOLUMES & changed.keys():
                changed[key] = _flipped(changed[key], axis, chosen[:, axis])
            for key in POINTS & changed.keys():
                changed[key] = _flipped_points(changed[key], axis, size[axis], chosen[:, axis])
            if ALIGNMENT in changed:
                changed[ALIGNMENT] = _flipped_alignment(changed[ALIGNMENT], axis, size[axis], chosen[:, axis])
        return cast(Batch, changed)


def _flipped(volume: Volume, axis: int, chosen: Tensor) -> Volume:
    return torch.where(chosen.view(-1, 1, 1, 1, 1), volume.flip(axis + 2), volume)


def _flipped_points(points: Points, axis: int, side: int, chosen: Tensor) -> Points:
    flipped = points.clone()
    flipped[..., axis] = torch.where(chosen[:, None], side - 1 - points[..., axis], points[..., axis])
    return flipped


def _flipped_alignment(alignment: Homogeneous, axis: int, side: int, chosen: Tensor) -> Homogeneous:
    """Where the same tissue lies, told between the flipped grids: F M F, F being its own inverse."""
    flip = torch.eye(4).to(alignment)
    flip[axis, axis], flip[axis, 3] = -1, side - 1
    return torch.where(chosen[:, None, None], flip @ alignment @ flip, alignment)


def _check_axes(axes: object) -> tuple[int, ...]:
    listed = list(axes) if isinstance(axes, Sequence) and not isinstance(axes, str) else []
    if not listed or any(isinstance(axis, bool) or axis not in (0, 1, 2) for axis in listed):
        raise ValueError(f"data.augmentation.axes={axes} is not valid: give array axes of 0, 1 and 2, such as [0,1].")
    return tuple(sorted(set(listed)))
