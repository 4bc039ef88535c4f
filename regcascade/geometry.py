"""Where a scan's voxels lie in the world, and reading and writing scans in their own pixel type.

Convention: a place in the world is in mm, RAS, as nibabel has it; ITK's images and transforms are in LPS, and the
conversion happens here and in `transform_files.py` only. Arrays are `(X, Y, Z)` in the file's order, ITK's reversed.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Shaped
from nibabel.affines import apply_affine, voxel_sizes

from regcascade.data.volumes import (
    LPS_TO_RAS,
    NIBABEL_SUFFIXES,
    UNREADABLE,
    Header,
    first_line,
    kept_locale,
    read_header,
    series_files,
)
from regcascade.files import written_in_folder
from regcascade.types import Size

WRITTEN = (".nii.gz", ".nii", ".mha", ".nrrd")  # formats of one file each
# The cosine between two axes above which a grid is no grid of ITK's. In memory ITK keeps such axes; a NIfTI file it
# writes also has a quaternion, of axes at right angles, which some readers take: each axis is then turned by half of
# it, at most 0.015 mm at the far end of 300 mm. Rounding gives 1e-7 in NIfTI, up to 1e-4 in headers of four decimals.
SHEAR = 1e-4
CHUNK = 2**24  # bytes
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
    def of_header(cls, header: Header) -> "Geometry":
        """The grid of a header."""
        return cls(header.shape, header.affine)

    @classmethod
    def of_image(cls, image: sitk.Image) -> "Geometry":
        """The grid of an ITK image."""
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        x, y, z = image.GetSize()
        return cls((x, y, z), LPS_TO_RAS @ affine)

    @classmethod
    def read(cls, path: Path) -> "Geometry":
        """The grid of an image file or DICOM folder, without its voxels; errors are those of `read_header`."""
        return cls.of_header(read_header(path))

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


@kept_locale()
def read_scan(path: Path, series: str | None = None) -> sitk.Image:
    """A 3D image as an ITK image, in the pixel type and the intensities of its file.

    What nibabel reads comes through nibabel, so that a NIfTI file lies where the rest of regcascade sees it; with a
    scaling in its header it becomes float32.

    Args:
        path: an image file, or the folder of a DICOM series.
        series: the UID of the series, for a folder that holds several.

    Raises:
        ValueError: naming the file, if it cannot be read, is not 3D, has several components, or its grid is sheared.
    """
    geometry = Geometry.of_header(read_header(path, series))
    try:
        if path.is_dir():
            image = sitk.ReadImage(series_files(path, series))
        elif path.name.lower().endswith(NIBABEL_SUFFIXES):
            return geometry.as_itk(stored_voxels(path))
        else:
            image = sitk.ReadImage(str(path))
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a scan: {first_line(error)}") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(f"{path} has {image.GetNumberOfComponentsPerPixel()} components a voxel; give it one by one.")
    if not Geometry.of_image(image).same_as(geometry):  # a tilted gantry shifts every slice, which ITK leaves out
        raise ValueError(
            f"{path} lies on a sheared grid, as of a tilted gantry, and ITK knows grids with right angles only. "
            "Resample the scan onto such a grid first."
        )
    return image


def stored_voxels(path: Path) -> np.ndarray:
    """What nibabel reads of a file, of any number of axes, in the type that is stored; float32 where that is scaled."""
    file: Any = nibabel.load(path)
    voxels = np.asanyarray(file.dataobj)
    if voxels.dtype.kind not in "iuf":
        raise ValueError(f"its voxels are {voxels.dtype}, and must be real numbers, one each.")
    stored = voxels.dtype == file.get_data_dtype()
    return voxels.astype(voxels.dtype.newbyteorder("=") if stored else np.float32, copy=False)


@kept_locale()
def write_scan(image: sitk.Image, path: Path) -> None:
    """Write an ITK image, compressed, whole or not at all.

    Raises:
        ValueError: naming the file, if its suffix is of no image format or it cannot be written there.
    """
    if not path.name.lower().endswith(WRITTEN):
        raise ValueError(f"{path}: an image is written to a name that ends in one of {', '.join(WRITTEN)}.")
    try:
        with written_in_folder(path) as temporary:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            _check_whole(temporary, image)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error


def _check_whole(path: Path, image: sitk.Image) -> None:
    """Raise OSError if a NIfTI file is shorter than its voxels: ITK's writer does not say that a disk is full."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return
    length = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while chunk := file.read(CHUNK):
                length += len(chunk)
    except EOFError as error:
        raise OSError("the disk is full") from error
    if length < image.GetNumberOfPixels() * image.GetSizeOfPixelComponent() * image.GetNumberOfComponentsPerPixel():
        raise OSError("the disk is full")
