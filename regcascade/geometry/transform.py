"""The result of a registration in native space: warps images, labels and points, composes and inverts."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Bool, Float
from nibabel.affines import apply_affine
from torch import Tensor

from regcascade.geometry.displacement import Vectors, as_volume, determinants, inverted, slabs, values_at
from regcascade.geometry.grid import Geometry, Places
from regcascade.geometry.itk import composite
from regcascade.geometry.resample import Mover, resampled, resampled_labels
from regcascade.geometry.warp import sample_at
from regcascade.types import Flow

TOLERANCE_MM, POINT_TOLERANCE_MM = 1e-3, 1e-6  # largest error of an inverse that was found: of a volume, of points
PROBES = 12  # along each axis of a grid


@dataclass(frozen=True, eq=False)
class Transform:
    """A map from the world of a fixed scan to that of a moving one; it brings the moving scan onto the fixed one.

    Convention: `moved(x) = moving(affine(x + displacement(x)))` for a place x of the fixed world, in mm. Between voxels
    the displacement is trilinear. Beyond the fixed grid it is that of the nearest border voxel; in ITK it is zero from
    half a voxel beyond the outermost centres on.

    >>> grid = Geometry((4, 4, 4), np.eye(4))
    >>> shift = Transform(grid, grid, np.eye(4), np.ones((4, 4, 4, 3), np.float32))
    >>> shift.points_to_moving(np.zeros((1, 3)))
    array([[1., 1., 1.]])
    """

    fixed: Geometry
    moving: Geometry
    affine: np.ndarray  # (4, 4), invertible, mm to mm, RAS
    displacement: Vectors = field(repr=False)  # (X, Y, Z, 3) float32, mm, RAS, on the fixed grid

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError(f"a transform needs an invertible 4 x 4 affine map, not {affine.tolist()}.")
        if self.displacement.shape != (*self.fixed.shape, 3):
            raise ValueError(
                f"the displacement of a transform has the shape {self.displacement.shape}; on its fixed grid "
                f"{self.fixed.shape} it must be {(*self.fixed.shape, 3)}."
            )
        if not np.isfinite(self.displacement).all():
            raise ValueError("the displacement of a transform holds NaN or infinity.")
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "displacement", np.ascontiguousarray(self.displacement, np.float32))

    @classmethod
    def from_flow(
        cls, flow: Flow, grid: np.ndarray, fixed: Geometry, moving: Geometry, affine: np.ndarray
    ) -> "Transform":
        """The transform of a network's flow, sampled at every voxel of the fixed scan.

        Args:
            flow: `(1, 3, x, y, z)` in voxels of the network's grid, where voxel p goes to `p + flow(p)`.
            grid: `4 x 4`, from voxels of the network's grid to mm of the fixed world, RAS.
            fixed: the fixed scan's grid.
            moving: the moving scan's grid.
            affine: `4 x 4`, from mm of the fixed world to mm of the moving one, applied after the flow.
        """
        volume, to_grid = flow.detach().to("cpu", torch.float32), np.linalg.inv(grid) @ fixed.affine
        turn = np.asarray(grid, np.float32)[:3, :3].T
        displacement = np.empty((*fixed.shape, 3), np.float32)
        for rows, voxels in slabs(fixed.shape):
            values = values_at(volume, apply_affine(to_grid, voxels)) @ turn
            displacement[rows] = values.reshape(-1, *fixed.shape[1:], 3)
        return cls(fixed, moving, affine, displacement)

    def itk(self) -> sitk.CompositeTransform:
        """The transform as ITK's composite of the affine map and the field, which is applied first."""
        return composite(self.fixed, self.affine, self.displacement)

    def warp_image(self, image: sitk.Image, like: Geometry | None = None, fill: float | None = None) -> sitk.Image:
        """Bring an image of the moving world onto the fixed grid, linearly, in its own pixel type.

        `like` is another grid of the fixed world, in place of the fixed scan's. `fill` is the value beyond the image;
        by default its minimum.
        """
        return resampled(image, like or self.fixed, self._mover(like), fill)

    def warp_labels(
        self, labels: sitk.Image, interpolation: str = "nearest", like: Geometry | None = None
    ) -> sitk.Image:
        """Bring a label map of the moving world onto the fixed grid; see `resampled_labels` and `warp_image`."""
        return resampled_labels(labels, like or self.fixed, self._mover(like), interpolation)

    def points_to_moving(self, points: Places) -> Places:
        """Take places of the fixed world to the moving one; `(K, 3)` mm, RAS, NaN where missing."""
        places = np.asarray(points, np.float64)
        voxels = torch.from_numpy(self.fixed.to_voxels(places))
        return apply_affine(self.affine, places + sample_at(as_volume(self.displacement), voxels[None])[0].numpy())

    def points_to_fixed(self, points: Places) -> Places:
        """Take places of the moving world to the fixed one; NaN where missing or where the inverse was not found."""
        targets = self.fixed.to_voxels(apply_affine(np.linalg.inv(self.affine), np.asarray(points, np.float64)))
        voxels, errors = self._inverted(torch.from_numpy(targets), POINT_TOLERANCE_MM)
        found = (errors <= POINT_TOLERANCE_MM).numpy()
        return np.where(found[:, None], self.fixed.to_world(voxels.numpy()), np.nan)

    def meets(self, image: Geometry) -> bool:
        """Whether any of `PROBES` places along each axis of either grid comes to lie in the other."""
        there = self.points_to_moving(self.fixed.probes(PROBES))
        back = self.points_to_fixed(image.probes(PROBES))
        return bool(image.contains(there).any() or self.fixed.contains(back).any())

    def total(self) -> Vectors:
        """The vectors from each voxel of the fixed grid to where it lies in the moving world, as `displacement`."""
        result = np.empty_like(self.displacement)
        for rows, part in self.total_by_planes():
            result[rows] = part
        return result

    def total_by_planes(self) -> Iterator[tuple[slice, Vectors]]:
        """Slices of planes along the first axis, each with its part of `total`, for scans of any size."""
        for rows, voxels in slabs(self.fixed.shape):
            places = self.fixed.to_world(voxels)
            there = apply_affine(self.affine, places + self.displacement[rows].reshape(-1, 3))
            yield rows, (there - places).astype(np.float32).reshape(self.displacement[rows].shape)

    def jacobian_det(self) -> Float[np.ndarray, "x y z"]:
        """Determinant of the Jacobian of the whole map, world to world, at every voxel of the fixed grid."""
        result = determinants(self.displacement, np.linalg.inv(self.fixed.affine[:3, :3]))
        result *= np.float32(np.linalg.det(self.affine[:3, :3]))
        return result

    def compose(self, then: "Transform") -> "Transform":
        """Compose two transforms into one, with the fixed grid of `then` and the moving grid of this one.

        `self.compose(then).warp_image(image)` is `then.warp_image(self.warp_image(image))` up to interpolation.
        """
        back = np.linalg.inv(then.affine[:3, :3])
        volume = as_volume(self.displacement)
        displacement = np.empty_like(then.displacement)
        for rows, voxels in slabs(then.fixed.shape):
            first = then.displacement[rows].reshape(-1, 3)
            there = apply_affine(then.affine, then.fixed.to_world(voxels) + first)
            second = values_at(volume, self.fixed.to_voxels(there))
            displacement[rows] = (first + second @ back.T).reshape(displacement[rows].shape)
        return Transform(then.fixed, self.moving, self.affine @ then.affine, displacement)

    def inverse(self) -> "Inverse":
        """The transform that brings the fixed scan onto the moving one, on the moving grid."""
        back = np.linalg.inv(self.affine)
        to_targets = np.linalg.inv(self.fixed.affine) @ back @ self.moving.affine
        to_mm = self.affine[:3, :3] @ self.fixed.affine[:3, :3]
        displacement = np.empty((*self.moving.shape, 3), np.float32)
        residual, reached = np.empty(self.moving.shape, np.float32), np.empty(self.moving.shape, bool)
        for rows, voxels in slabs(self.moving.shape):
            targets = torch.from_numpy(apply_affine(to_targets, voxels)).float()
            places, errors = self._inverted(targets, TOLERANCE_MM)
            displacement[rows] = ((places - targets).numpy() @ to_mm.T).reshape(displacement[rows].shape)
            residual[rows] = errors.numpy().reshape(residual[rows].shape)
            inside = self.fixed.contains(self.fixed.to_world(places.numpy().astype(np.float64)))
            reached[rows] = ((errors <= TOLERANCE_MM).numpy() & inside).reshape(residual[rows].shape)
        return Inverse(Transform(self.moving, self.fixed, back, displacement), residual, reached)

    def _inverted(self, targets: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """`inverted` of the displacement, for targets in voxels of the fixed grid; errors in mm of the moving world."""
        steps, volume = self.fixed.affine[:3, :3], as_volume(self.displacement).to(targets.dtype)
        to_voxels = torch.from_numpy(np.linalg.inv(steps).T.copy()).to(targets.dtype)
        to_mm = torch.from_numpy(self.affine[:3, :3] @ steps).to(targets.dtype)
        return inverted(lambda places: sample_at(volume, places[None])[0] @ to_voxels, targets, to_mm, tolerance)

    def _mover(self, like: Geometry | None) -> Mover:
        """The whole field, or on its own grid only the planes that are resampled."""
        if like is not None:
            return self.itk()
        return lambda rows: composite(self.fixed.part(rows), self.affine, self.displacement[rows])


@dataclass(frozen=True, eq=False)
class Inverse:
    """An inverse, and how far to trust it."""

    transform: Transform  # its fixed grid, (X, Y, Z), is the moving grid of the original
    residual_mm: Float[np.ndarray, "x y z"] = field(repr=False)  # from each voxel to where going there and back leads
    # The voxels that have an inverse, found to within 0.001 mm and inside the other grid; elsewhere `transform` holds
    # the best that was found.
    reached: Bool[np.ndarray, "x y z"] = field(repr=False)
