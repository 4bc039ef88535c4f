"""Reading a scan in any format, with where its voxels lie in the world.

NIfTI and whatever else nibabel reads comes through MONAI's nibabel reader; MetaImage, NRRD, DICOM series folders and
the rest of ITK's formats through SimpleITK, whose frame (LPS) is turned into nibabel's (RAS).
"""

import locale
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from monai.data.image_reader import NibabelReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import SpatialImage

from regcascade.data.io.dicom import series_files, series_header
from regcascade.data.io.errors import UNREADABLE, VolumeError, first_line
from regcascade.geometry.grid import Geometry
from regcascade.geometry.orientation import LPS_TO_RAS, itk_affine

__all__ = [
    "LPS_TO_RAS",
    "NIBABEL_SUFFIXES",
    "UNREADABLE",
    "VolumeError",
    "as_meta",
    "check_intensities",
    "check_no_h5",
    "first_line",
    "is_nibabel",
    "kept_locale",
    "read_header",
    "read_itk",
    "read_volume",
    "readable",
    "scan_name",
]  # fmt: skip

# File names that nibabel reads; everything else goes to ITK.
NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".mgh", ".mgz")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".gipl.gz", ".vtk", ".dcm")
SUFFIXES = NIBABEL_SUFFIXES + ITK_SUFFIXES
H5_SUFFIXES = (".h5", ".hdf5")  # of RCN's files, which hold many scans

_READ = LoadImage(reader=NibabelReader(), image_only=True, ensure_channel_first=True)


@contextmanager
def kept_locale() -> Iterator[None]:
    """Put the locale back: ITK leaves the C locale behind, in which Python takes text files for ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def read_header(path: Path, series: str | None = None) -> Geometry:
    """The shape and place of a 3D image, without its voxels.

    Args:
        path: an image file, or the folder of a DICOM series.
        series: the UID of the series, for a folder that holds several.

    Raises:
        ValueError: naming the file, if it is missing, not an image, not 3D, empty, or its geometry is degenerate.
    """
    _check_exists(path)
    check_no_h5(path)
    try:
        if path.is_dir():
            shape, affine = series_header(path, series)
        elif is_nibabel(path):
            image = nibabel.load(path)
            if not isinstance(image, SpatialImage):  # such as CIFTI-2, which is called .nii too
                raise VolumeError(f"{path} holds no grid of voxels ({type(image).__name__}): give a 3D image.")
            if image.get_data_dtype().kind not in "iuf":
                raise VolumeError(f"{path} holds {image.get_data_dtype()} voxels; give real numbers, one a voxel.")
            shape, affine = tuple(int(side) for side in image.shape), np.asarray(image.affine, dtype=float)
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            components = reader.GetNumberOfComponents()
            shape = tuple(reader.GetSize()) + ((components,) if components > 1 else ())
            affine = itk_affine(reader)
    except VolumeError:
        raise
    except UNREADABLE as error:
        raise VolumeError(f"{path} cannot be read as an image ({first_line(error)}). Fetch it again.") from error
    return _checked(path, shape, affine)


@kept_locale()
def read_volume(path: Path, series: str | None = None) -> MetaTensor:
    """A 3D image as `(1, X, Y, Z)` float32, in its own intensities and axis order, its `affine` in RAS.

    Args:
        path: an image file, or the folder of a DICOM series.
        series: the UID of the series, for a folder that holds several.

    Raises:
        ValueError: naming the file, if it cannot be read or is not a 3D image.
    """
    header = read_header(path, series)
    with readable(path):
        if is_nibabel(path):
            return _READ(path)
        image = read_itk(path, series, sitk.sitkFloat32)
    voxels = np.ascontiguousarray(sitk.GetArrayFromImage(image).T)
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(header.affine.copy()))


def read_itk(path: Path, series: str | None = None, pixel: int = sitk.sitkUnknown) -> sitk.Image:
    """What ITK reads of a file or of a DICOM series, in the stored pixel type or another."""
    return sitk.ReadImage(series_files(path, series) if path.is_dir() else str(path), pixel)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what nibabel and ITK raise for a damaged file into a `VolumeError` that names it."""
    try:
        yield
    except VolumeError:
        raise
    except UNREADABLE as error:
        raise VolumeError(
            f"{path} cannot be read ({first_line(error)}). It may be cut short or damaged; fetch it again."
        ) from error


def check_intensities(scan: MetaTensor, path: Path) -> None:
    """Raise ValueError naming the file if a scan has voxels that are not finite, or all equal."""
    if not torch.isfinite(scan).all():
        raise VolumeError(f"{path} has voxels that are NaN or infinite. Mend the file, or leave the scan out.")
    if scan.min() == scan.max():
        raise VolumeError(f"{path} is constant: every voxel is {float(scan.min()):g}. Leave the scan out.")


def as_meta(volume: object) -> MetaTensor:
    """A volume that MONAI or torch made of a `MetaTensor`, which is one too, though their annotations promise less."""
    if not isinstance(volume, MetaTensor):
        raise TypeError(f"A volume has lost its affine: it is a {type(volume).__name__}.")
    return volume


def scan_name(path: Path) -> str:
    """A scan's name: its file name without the suffix of its format; the name of a DICOM folder."""
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), "")
    return path.name[: -len(suffix)] if suffix and len(path.name) > len(suffix) else path.name


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise VolumeError(f"{path} does not exist. Restore the file, or take it out of the list it is in.")


def check_no_h5(path: Path) -> None:
    """Raise ValueError, saying what to do, for a file that holds many scans."""
    if path.suffix.lower() in H5_SUFFIXES:
        raise VolumeError(
            f"{path}: HDF5 files are read by the JSON that lists their scans: regcascade prepare liver.json --subset "
            "NAME, or data=rcn_h5 data.root=liver.json."
        )


def is_nibabel(path: Path) -> bool:
    """Whether nibabel reads a file, rather than ITK, as its name tells."""
    return path.name.lower().endswith(NIBABEL_SUFFIXES) and not path.is_dir()


def _checked(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Geometry:
    if len(shape) != 3:
        raise VolumeError(f"{path} has {len(shape)} axes, {shape}: give 3D images, one channel or time point a file.")
    if min(shape) < 1:
        raise VolumeError(f"{path} is empty: its shape is {shape}.")
    spacing = voxel_sizes(affine)
    if not (np.isfinite(affine).all() and (spacing > 0).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-12):
        raise VolumeError(
            f"{path} has a degenerate geometry: its voxels measure {spacing.tolist()} mm. Mend its header."
        )
    x, y, z = shape
    return Geometry((x, y, z), affine)
