"""Random deformation of the moving scans during training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.data.options import check_count
from regcascade.registry import Registry, Spec
from regcascade.spatial import sample_at, warp, warp_labels
from regcascade.types import Batch, Flow, Image, Points, Size, size_of

NONE = "none"


class Augmentation(ABC):
    """A random change of a batch, on whatever device the batch is."""

    @abstractmethod
    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A changed copy; the same for the same state of the generator (None: the global one of the CPU)."""


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


@AUGMENTATIONS.register("bspline")
class BSplineAugmentation(Augmentation):
    """The first paper's augmentation: the moving scan is pulled through a random cubic B-spline field.

    `control_points`^3 control points span the volume from face to face, with a ring of zeros around them.
    Component a of each is `scale sign(v) |v|^power` times the spacing of the control points along axis a,
    which for five of them is a quarter of the side; v is uniform in -1..1, drawn anew for every pair. The
    field at a voxel is the tensor product of uniform cubic B-splines, `sum_ijk B_i(x) B_j(y) B_k(z) c_ijk`,
    evaluated as a small matrix product per axis. Images are sampled linearly and labels by nearest. A point
    that the field moves off the volume keeps its coordinates outside; where the field is too
    steep to be inverted, the point is marked missing (NaN).

    Args:
        control_points: along each axis, at least 2.
        scale: largest component, in spacings of the control points.
        power: exponent that makes large components rare.
    """

    def __init__(self, control_points: int = 5, scale: float = 0.4, power: float = 3.0) -> None:
        self.control_points = check_count("data.augmentation.control_points", control_points, 2)
        self.scale = _non_negative("data.augmentation.scale", scale)
        self.power = _non_negative("data.augmentation.power", power)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Deform the moving image, labels and points of a batch; the fixed scan stays."""
        moving = batch["moving"]
        field = self.field(moving, generator)
        augmented = batch.copy()
        augmented["moving"] = warp(moving, field)
        if "moving_labels" in batch:
            augmented["moving_labels"] = warp_labels(batch["moving_labels"], field)
        if "moving_points" in batch:
            augmented["moving_points"] = pull_points(batch["moving_points"], field)
        return augmented

    def field(self, like: Image, generator: torch.Generator | None = None) -> Flow:
        """A random field for each scan of a batch, in voxels, on the device of the batch."""
        n, size = self.control_points, size_of(like)
        # A generator of the CPU gives the same field on every device.
        device = "cpu" if generator is None else generator.device
        drawn = torch.rand((like.shape[0], 3, n, n, n), generator=generator, device=device)
        v = (2 * drawn - 1).to(like.device)
        spacing = torch.tensor([side / (n - 1) for side in size], device=like.device).view(1, 3, 1, 1, 1)
        return bspline_field(self.scale * v.sign() * v.abs() ** self.power * spacing, size)


def bspline_field(control: Float[Tensor, "batch 3 i j k"], size: Size) -> Flow:
    """The uniform cubic B-spline of control points that span a volume, zero beyond them.

    Control point i of n sits at `i S / (n - 1)` of the axis, whose voxels have their centres at `p + 1/2`.
    """
    x, y, z = (_basis(side, points, control) for side, points in zip(size, control.shape[2:], strict=True))
    along_z = torch.einsum("bcijk,zk->bcijz", control, z)
    along_yz = torch.einsum("bcijz,yj->bciyz", along_z, y)
    return torch.einsum("bciyz,xi->bcxyz", along_yz, x)


def pull_points(points: Points, field: Flow, rounds: int = 100, tolerance: float = 0.05) -> Points:
    """Where points of an image lie after it was pulled through `field`: p with `p + field(p) = point`.

    Solved by the fixed-point iteration `p <- point - field(p)`. A point at which it ends more than
    `tolerance` voxels off, because the field is too steep there, becomes NaN.
    """
    place = points
    for _ in range(rounds):
        place = points - sample_at(field, place).to(points.dtype)
    error = (place + sample_at(field, place) - points).abs().amax(-1, keepdim=True)
    return place.masked_fill(error > tolerance, float("nan"))


def build_augmentation(spec: Spec | None) -> Augmentation | None:
    """The augmentation of a name, or of a mapping with `name` and options; None for `none`.

    Raises:
        ValueError: for an unknown name or option, naming the valid ones.
    """
    if spec is None or spec == NONE or (isinstance(spec, Mapping) and spec.get("name") == NONE):
        return None
    if isinstance(spec, str) and spec not in AUGMENTATIONS.names():
        raise ValueError(f"data.augmentation={spec} is not valid. Known: {', '.join([NONE, *AUGMENTATIONS.names()])}.")
    name, options = AUGMENTATIONS.options(spec)
    return AUGMENTATIONS.get(name)(**options)


def _basis(side: int, points: int, like: Tensor) -> Float[Tensor, "side points"]:
    """Weight of each control point at each voxel of an axis."""
    centres = torch.arange(side, dtype=torch.float64) + 0.5
    place = centres[:, None] * (points - 1) / side - torch.arange(points)
    distance = place.abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far).to(like)


def _non_negative(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ValueError(f"{option}={value} is not valid: give a number, 0 or more.")
    return float(value)
