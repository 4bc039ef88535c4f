"""Where a scan's voxels lie in the world.

Convention: a place in the world is in mm, RAS, as nibabel has it; ITK's images and transforms are in LPS, and the
conversion happens here, in `orientation.py` and in `itk.py` only. Arrays are `(X, Y, Z)` in the file's order, ITK's
reversed.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Shaped
from nibabel.affines import apply_affine, voxel_sizes

from regcascade.geometry.orientation import LPS_TO_RAS
from regcascade.types import Size

# The cosine between two axes above which a grid is no grid of ITK's. In memory ITK keeps such axes; a NIfTI file it
# writes also has a quaternion, of axes at right angles, which some readers take: each axis is then turned by half of
# it, at most 0.015 mm at the far end of 300 mm. Rounding gives 1e-7 in NIfTI, up to 1e-4 in headers of four decimals.
SHEAR = 1e-4
SAME = 0.01  # of a voxel, by which corners of grids that are the same may differ

Places = Float[np.ndarray, "k 3"]


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid of voxels in the world.

    Attributes:
        shape: voxels along each array axis.
        affine: `(4, 4)` float64, from voxel indices (the centre of the first voxel is 0) to mm in RAS.
    """

    shape: Size
    affine: np.ndarray

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
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        x, y, z = image.GetSize()
        return cls((x, y, z), LPS_TO_RAS @ affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm per voxel along each array axis."""
        x, y, z = (float(step) for step in voxel_sizes(self.affine))
        return x, y, z

    def same_as(self, other: "Geometry") -> bool:
        """Whether two grids are the same one, up to the rounding of headers."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(-0.5, side - 0.5) for side in self.shape])).reshape(3, 8).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() < SAME * min(self.spacing))

    def to_world(self, voxels: Places) -> Places:
        """Voxel coordinates to mm in RAS."""
        return apply_affine(self.affine, voxels)

    def to_voxels(self, places: Places) -> Places:
        """Mm in RAS to voxel coordinates."""
        return apply_affine(np.linalg.inv(self.affine), places)

    def contains(self, places: Places) -> Shaped[np.ndarray, " k"]:
        """Which places, in mm, lie within the borders of the grid, half a voxel beyond the outermost centres."""
        voxels = self.to_voxels(places)
        return np.all((voxels >= -0.5) & (voxels <= np.array(self.shape) - 0.5), axis=-1)

    def probes(self, count: int) -> Places:
        """Places all over the grid, its borders included, at most `count` along each axis; mm, RAS."""
        axes = [np.linspace(-0.5, side - 0.5, min(side + 1, count)) for side in self.shape]
        return self.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))

    def part(self, rows: slice) -> "Geometry":
        """The grid of some planes along the first axis."""
        affine = self.affine.copy()
        affine[:3, 3] += rows.start * affine[:3, 0]
        return Geometry((rows.stop - rows.start, *self.shape[1:]), affine)

    def as_itk(self, voxels: np.ndarray) -> sitk.Image:
        """`(X, Y, Z)` voxels, or `(X, Y, Z, 3)` vectors (as they are, not turned), as an ITK image on this grid.

        Raises:
            ValueError: if the grid is sheared: ITK's axes are at right angles.
        """
        image = sitk.GetImageFromArray(
            np.ascontiguousarray(np.moveaxis(voxels, (0, 1, 2), (2, 1, 0))), isVector=voxels.ndim == 4
        )
        affine, spacing = LPS_TO_RAS @ self.affine, np.array(self.spacing)
        direction = affine[:3, :3] / spacing
        shear = np.abs(direction.T @ direction - np.eye(3)).max()
        if shear > SHEAR:
            angle = np.rad2deg(np.arccos(min(shear, 1.0)))
            raise ValueError(
                f"the grid {self.shape} is sheared: two of its axes are at {angle:.2f} degrees, and ITK knows grids "
                "with right angles only. Resample the scan onto such a grid first."
            )
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection(direction.flatten().tolist())
        return image

    def reference(self) -> sitk.Image:
        """An empty ITK image on this grid, for filters that take one."""
        return self.as_itk(np.zeros(self.shape, np.uint8))


def voxels_of(image: sitk.Image) -> np.ndarray:
    """The voxels of an ITK image as `(X, Y, Z)`, or `(X, Y, Z, C)` of a vector image; a copy."""
    return np.moveaxis(sitk.GetArrayFromImage(image), (0, 1, 2), (2, 1, 0))
