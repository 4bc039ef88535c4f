"""Random rotation, scaling and translation of the moving scan."""

import math

import torch
from torch import Tensor

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation, check_number, deform_moving, uniform
from regcascade.geometry.affine import Affine
from regcascade.types import Batch, Matrix, Points, size_of


@AUGMENTATIONS.register("affine")
class AffineAugmentation(Augmentation):
    """The moving scan is pulled through a random `p -> A (p - c) + c + b` about the volume's centre c, in voxels.

    `A = D^-1 R D S`: S scales the axes, and R, three rotations about the axes in turn, acts in mm, D being the moving
    scan's spacing, so that it shears nothing where voxels are longer along one axis. The moving points take the exact
    inverse. Every number is drawn uniformly and anew for each pair.

    Args:
        rotation: largest angle about each axis, in degrees, 0 to 180.
        scaling: each axis is scaled by `(1 + scaling)^v`, v in -1..1: 0.1 gives factors from 0.91 to 1.1.
        translation: largest component of b, as a fraction of the side of its axis.
    """

    def __init__(self, rotation: float = 10.0, scaling: float = 0.1, translation: float = 0.05) -> None:
        self.rotation = check_number("rotation", rotation, 0.0, 180.0)
        self.scaling = check_number("scaling", scaling)
        self.translation = check_number("translation", translation)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Move the moving image, labels and points of a batch; the fixed scan stays."""
        affine = self.map(batch, generator)
        return deform_moving(batch, affine.displacement(), lambda points: inverse(affine, points))

    def map(self, batch: Batch, generator: torch.Generator | None = None) -> Affine:
        """A random map for each moving scan of a batch, on the device of the batch."""
        moving, size = batch["moving"], size_of(batch["moving"])
        angles, scales, shifts = (2 * uniform((len(moving), 3, 3), moving, generator) - 1).unbind(1)
        spacing = batch["moving_spacing"].to(moving)
        rotation = rotations(angles * math.radians(self.rotation))
        # D^-1 R D, entry by entry; then S scales the columns.
        in_voxels = rotation * spacing[:, None, :] / spacing[:, :, None]
        matrix = in_voxels * ((1 + self.scaling) ** scales)[:, None, :]
        return Affine(matrix, shifts * self.translation * torch.tensor(size).to(moving), size)


def rotations(angles: Tensor) -> Matrix:
    """Rotations about axis 0, then 1, then 2, by angles `(B, 3)` in radians.

    A positive angle about an axis turns the next one towards the one after it, in the order 0, 1, 2, 0, 1.
    """
    result = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(len(angles), 3, 3)
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        turn = torch.zeros_like(result)
        turn[:, axis, axis] = 1
        turn[:, one, one] = turn[:, other, other] = cos
        turn[:, other, one], turn[:, one, other] = sin, -sin
        # A sum of products, because a matrix product of a GPU may be rounded to ten bits.
        result = (turn[:, :, :, None] * result[:, None]).sum(2)
    return result


def inverse(affine: Affine, points: Points) -> Points:
    """Where points go by the inverse map: `A^-1 (p - c - b) + c`; NaN stays NaN."""
    centre = (torch.tensor(affine.size).to(points) - 1) / 2
    centred = points - centre - affine.offset[:, None].to(points)
    # Of 3x3 matrices, in double precision; Apple's GPUs have none, hence on the CPU.
    back = affine.matrix.cpu().double().inverse().to(points)
    return (back[:, None] * centred[:, :, None]).sum(-1) + centre
