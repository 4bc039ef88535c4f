"""RCN's augmentation (Zhao 2019): a random smooth deformation of the moving scan."""

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation, deform_moving, pull_points, uniform
from regcascade.data.options import check_count, check_number
from regcascade.types import Batch, Flow, Image, Size, size_of


@AUGMENTATIONS.register("bspline")
class BSplineAugmentation(Augmentation):
    """RCN's augmentation (Zhao 2019): the moving scan is pulled through a random cubic B-spline field.

    `control_points`^3 control points span the volume from face to face, with a ring of zeros around them. Component a
    of each is `scale sign(v) |v|^power` times the spacing of the control points along axis a, which for five of them is
    a quarter of the side; v is uniform in -1..1, drawn anew for every pair. The field at a voxel is the tensor product
    of uniform cubic B-splines, `sum_ijk B_i(x) B_j(y) B_k(z) c_ijk`. A point that the field moves off the volume keeps
    its coordinates outside; where the field is too steep to be inverted, the point becomes missing (NaN).

    Args:
        control_points: along each axis, at least 2.
        scale: largest component, in spacings of the control points.
        power: exponent that makes large components rare.
    """

    def __init__(self, control_points: int = 5, scale: float = 0.4, power: float = 3.0) -> None:
        self.control_points = check_count("data.augmentation.control_points", control_points, 2)
        self.scale = check_number("data.augmentation.scale", scale)
        self.power = check_number("data.augmentation.power", power)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Deform the moving image, labels and points of a batch; the fixed scan stays."""
        field = self.field(batch["moving"], generator)
        return deform_moving(batch, field, lambda points: pull_points(points, field))

    def field(self, like: Image, generator: torch.Generator | None = None) -> Flow:
        """Draw a field for each scan of a batch, in voxels, on the device of the batch."""
        n, size = self.control_points, size_of(like)
        v = 2 * uniform((like.shape[0], 3, n, n, n), like, generator) - 1
        spacing = torch.tensor([side / (n - 1) for side in size], device=like.device).view(1, 3, 1, 1, 1)
        return bspline_field(self.scale * v.sign() * v.abs() ** self.power * spacing, size)


def bspline_field(control: Float[Tensor, "batch 3 i j k"], size: Size) -> Flow:
    """Evaluate the uniform cubic B-spline of control points that span a volume, zero beyond them.

    Control point i of n sits at `i S / (n - 1)` of the axis, whose voxels have their centres at `p + 1/2`.
    """
    x, y, z = (_basis(side, points, control) for side, points in zip(size, control.shape[2:], strict=True))
    along_z = torch.einsum("bcijk,zk->bcijz", control, z)
    along_yz = torch.einsum("bcijz,yj->bciyz", along_z, y)
    return torch.einsum("bciyz,xi->bcxyz", along_yz, x)


def _basis(side: int, points: int, like: Tensor) -> Float[Tensor, "side points"]:
    """Compute the weight of each control point at each voxel of an axis."""
    centres = torch.arange(side, dtype=torch.float64) + 0.5
    place = centres[:, None] * (points - 1) / side - torch.arange(points)
    distance = place.abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far).to(like)
