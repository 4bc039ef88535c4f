"""Random rotation, scaling and translation of the moving scan."""

import torch
from scipy.spatial.transform import Rotation

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation, deform_moving, uniform
from regcascade.data.options import check_number
from regcascade.geometry.affine import Affine
from regcascade.types import Batch, Points, size_of


@AUGMENTATIONS.register("affine")
class AffineAugmentation(Augmentation):
    """The moving scan is pulled through a random `p -> A (p - c) + c + b` about the volume's centre c, in voxels.

    `A = D^-1 R D S`: S scales the axes, and R rotates about axes 0, 1 and 2 in turn, in mm, D being the moving scan's
    spacing; so nothing is sheared where voxels are longer along one axis. A positive angle about an axis turns the next
    one towards the one after it. The moving points take the exact inverse. Every number is drawn uniformly and anew for
    each pair.

    Args:
        rotation: largest angle about each axis, in degrees, 0 to 180.
        scaling: each axis is scaled by `(1 + scaling)^v`, v in -1..1: 0.1 gives factors from 0.91 to 1.1.
        translation: largest component of b, as a fraction of the side of its axis.
    """

    def __init__(self, rotation: float = 10.0, scaling: float = 0.1, translation: float = 0.05) -> None:
        self.rotation = check_number("data.augmentation.rotation", rotation, 0.0, 180.0)
        self.scaling = check_number("data.augmentation.scaling", scaling)
        self.translation = check_number("data.augmentation.translation", translation)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Move the moving image, labels and points of a batch; the fixed scan stays."""
        affine = self.map(batch, generator)
        return deform_moving(batch, affine.displacement(), lambda points: inverse(affine, points))

    def map(self, batch: Batch, generator: torch.Generator | None = None) -> Affine:
        """Draw a map for each moving scan of a batch, on the device of the batch."""
        moving, size = batch["moving"], size_of(batch["moving"])
        angles, scales, shifts = (2 * uniform((len(moving), 3, 3), moving, generator) - 1).unbind(1)
        spacing = batch["moving_spacing"].to(moving)
        degrees = (angles * self.rotation).cpu().double().numpy()
        rotation = torch.from_numpy(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()).to(moving)
        # D^-1 R D, entry by entry; then S scales the columns.
        in_voxels = rotation * spacing[:, None, :] / spacing[:, :, None]
        matrix = in_voxels * ((1 + self.scaling) ** scales)[:, None, :]
        return Affine(matrix, shifts * self.translation * torch.tensor(size).to(moving), size)


def inverse(affine: Affine, points: Points) -> Points:
    """Map points by the inverse: `A^-1 (p - c - b) + c`; NaN stays NaN."""
    centre = (torch.tensor(affine.size).to(points) - 1) / 2
    centred = points - centre - affine.offset[:, None].to(points)
    # In double precision on the CPU, as Apple's GPUs have none.
    back = affine.matrix.cpu().double().inverse().to(points)
    return (back[:, None] * centred[:, :, None]).sum(-1) + centre
