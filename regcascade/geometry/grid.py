"""Where a scan's voxels lie in the world.

Convention: places are in mm, RAS, as in nibabel. ITK's images and transforms are in LPS; only this module and `itk.py`
convert. Arrays are `(X, Y, Z)` in the file's order; ITK's are reversed.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Shaped
from nibabel.affines import apply_affine, voxel_sizes

from regcascade.types import Size

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Largest cosine between two axes of a grid that ITK is given: headers of four decimals round to that. A NIfTI file that
# ITK writes has right angles in its quaternion, which is then off by at most 0.015 mm in 300 mm.
SHEAR = 1e-4
SAME = 0.01  # voxels by which the corners of equal grids may differ

Places = Float[np.ndarray, "k 3"]


def itk_affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """The affine from voxel indices to RAS mm of an ITK image or header; the identity below three axes."""
    axes = image.GetDimension()
    if axes < 3:
        return np.eye(4)
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid of voxels in the world."""

    shape: Size  # voxels along each array axis
    affine: np.ndarray  # (4, 4) float64, invertible, from voxel indices (the first voxel's centre is 0) to mm in RAS

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError(f"a geometry needs an invertible 4 x 4 affine, not {affine.tolist()}.")
        if min(self.shape) < 1:
            raise ValueError(f"a geometry needs at least one voxel along each axis, not {self.shape}.")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of_image(cls, image: sitk.Image) -> "Geometry":
        """The grid of an ITK image."""
        x, y, z = image.GetSize()
        return cls((x, y, z), itk_affine(image))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm per voxel along each array axis."""
        x, y, z = (float(step) for step in voxel_sizes(self.affine))
        return x, y, z

    def same_as(self, other: "Geometry", tolerance: float = SAME) -> bool:
        """Whether two grids are the same, up to the rounding of headers or another part of a voxel."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(-0.5, side - 0.5) for side in self.shape])).reshape(3, 8).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() < tolerance * min(self.spacing))

    def to_world(self, voxels: Places) -> Places:
        """Voxel coordinates to mm in RAS.

        >>> Geometry((9, 9, 9), np.diag([2.0, 2.0, 3.0, 1.0])).to_world(np.array([[1.0, 0.0, 4.0]]))
        array([[ 2.,  0., 12.]])
        """
        return apply_affine(self.affine, voxels)

    def to_voxels(self, places: Places) -> Places:
        """Mm in RAS to voxel coordinates."""
        return apply_affine(np.linalg.inv(self.affine), places)

    def contains(self, places: Places) -> Shaped[np.ndarray, " k"]:
        """Which places (mm) lie in the grid, whose border is half a voxel beyond the outermost centres."""
        voxels = self.to_voxels(places)
        return np.all((voxels >= -0.5) & (voxels <= np.array(self.shape) - 0.5), axis=-1)

    def probes(self, count: int) -> Places:
        """Evenly spread places of the grid, its border included, at most `count` along each axis; mm, RAS."""
        axes = [np.linspace(-0.5, side - 0.5, min(side + 1, count)) for side in self.shape]
        return self.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))

    def part(self, rows: slice) -> "Geometry":
        """The grid of some planes along the first axis."""
        affine = self.affine.copy()
        affine[:3, 3] += rows.start * affine[:3, 0]
        return Geometry((rows.stop - rows.start, *self.shape[1:]), affine)

    def as_itk(self, voxels: np.ndarray) -> sitk.Image:
        """`(X, Y, Z)` voxels, or `(X, Y, Z, 3)` vectors as they are, as an ITK image; the grid must not be sheared."""
        image = sitk.GetImageFromArray(
            np.ascontiguousarray(np.moveaxis(voxels, (0, 1, 2), (2, 1, 0))), isVector=voxels.ndim == 4
        )
        affine, spacing = LPS_TO_RAS @ self.affine, np.array(self.spacing)
        direction = affine[:3, :3] / spacing
        shear = np.abs(direction.T @ direction - np.eye(3)).max()
        if shear > SHEAR:
            angle = np.rad2deg(np.arccos(min(shear, 1.0)))
            raise ValueError(
                f"the grid {self.shape} is sheared: two of its axes are at {angle:.2f} degrees, but ITK needs right "
                "angles. Resample the scan onto a grid with right angles first."
            )
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection(direction.flatten().tolist())
        return image

    def reference(self) -> sitk.Image:
        """An empty ITK image on this grid, as the reference of a filter."""
        return self.as_itk(np.zeros(self.shape, np.uint8))


def voxels_of(image: sitk.Image) -> np.ndarray:
    """The voxels of an ITK image as `(X, Y, Z)`, or `(X, Y, Z, C)` of a vector image; a copy."""
    return np.moveaxis(sitk.GetArrayFromImage(image), (0, 1, 2), (2, 1, 0))
