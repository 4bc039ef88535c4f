"""Flips of whole pairs."""

from collections.abc import Sequence
from typing import Any, cast

import torch

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation, uniform
from regcascade.data.options import check_number
from regcascade.types import Batch, size_of

VOLUMES = {"fixed", "moving", "fixed_labels", "moving_labels"}
POINTS = {"fixed_points", "moving_points"}


@AUGMENTATIONS.register("flip")
class FlipAugmentation(Augmentation):
    """Flips array axes of both scans of a pair alike, their points and their alignment with them.

    A point p of an axis of S voxels goes to `S - 1 - p`. Labels keep their values: the left kidney of a flipped scan
    lies on the right and is still called left.

    Args:
        axes: the array axes that may be flipped, of 0, 1 and 2.
        probability: of each of them, drawn by itself and anew for every pair.
    """

    def __init__(self, axes: Sequence[int] = (0, 1, 2), probability: float = 0.5) -> None:
        listed = list(axes) if isinstance(axes, Sequence) and not isinstance(axes, str) else []
        if not listed or any(isinstance(axis, bool) or axis not in (0, 1, 2) for axis in listed):
            raise ValueError(
                f"data.augmentation.axes={axes} is not valid: give array axes of 0, 1 and 2, such as [0,1]."
            )
        self.axes = sorted(set(listed))
        self.probability = check_number("data.augmentation.probability", probability, 0.0, 1.0)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Flip images, labels and points of both scans."""
        chosen = uniform((len(batch["fixed"]), 3), batch["fixed"], generator) < self.probability
        size = size_of(batch["fixed"])  # that of both scans
        changed: dict[str, Any] = dict(batch)
        for axis in self.axes:
            of_pair = chosen[:, axis, None, None]
            for key in VOLUMES & changed.keys():
                volume = changed[key]
                changed[key] = torch.where(of_pair[..., None, None], volume.flip(axis + 2), volume)
            for key in POINTS & changed.keys():
                mirrored = changed[key].clone()
                mirrored[..., axis] = size[axis] - 1 - mirrored[..., axis]
                changed[key] = torch.where(of_pair, mirrored, changed[key])
            if "alignment" in changed:
                # Between the flipped grids it is F M F, F being its own inverse.
                alignment = changed["alignment"]
                flip = torch.eye(4).to(alignment)
                flip[axis, axis], flip[axis, 3] = -1, size[axis] - 1
                changed["alignment"] = torch.where(of_pair, flip @ alignment @ flip, alignment)
        return cast(Batch, changed)
