"""Slices of a volume: which to show, and how they lie on the page."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

AXES = "xyz"


@dataclass(frozen=True)
class Plane:
    """A slice: all voxels whose index along the axis `normal` is `index`."""

    normal: int
    index: int

    @property
    def axes(self) -> tuple[int, int]:
        """The array axes that run to the right and up the page."""
        across, up = (axis for axis in range(3) if axis != self.normal)
        return across, up

    def cut(self, volume: Shaped[Tensor, "1 c x y z"]) -> Shaped[np.ndarray, "rows columns c"]:
        """The slice of a volume as an image, its first row being the lowest on the page."""
        return volume[0].select(1 + self.normal, self.index).permute(2, 1, 0).numpy()

    def aspect(self, spacing: tuple[float, ...]) -> float:
        """Height of a pixel over its width, from the mm per voxel of the volume."""
        across, up = self.axes
        return spacing[up] / spacing[across]


def planes_of(image: Float[Tensor, "1 1 x y z"], labels: Shaped[Tensor, "1 1 x y z"] | None) -> list[Plane]:
    """The planes through the middle of the labels (the median of their voxels), or of the volume, the fullest first.

    The fullest has most labelled voxels or, where nothing is labelled, the largest spread of intensities.
    """
    inside = None if labels is None else (labels[0, 0] > 0).nonzero()
    if inside is None or len(inside) == 0:
        planes = [Plane(axis, side // 2) for axis, side in enumerate(image.shape[2:])]
        return sorted(planes, key=lambda plane: -float(plane.cut(image).std()))
    middle = inside.median(dim=0).values.tolist()
    planes = [Plane(axis, int(index)) for axis, index in enumerate(middle)]
    return sorted(planes, key=lambda plane: -int((inside[:, plane.normal] == plane.index).sum()))
