"""Read a scan of any format, with where its voxels lie in the world.

MONAI's nibabel reader reads NIfTI and whatever else nibabel knows. SimpleITK reads MetaImage, NRRD, DICOM series
folders and the rest of ITK's formats; its frame (LPS) is turned into nibabel's (RAS).
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
from regcascade.data.io.errors import VolumeError, readable
from regcascade.geometry.grid import Geometry, itk_affine, voxels_of

# File names that nibabel reads; everything else goes to ITK.
NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".mgh", ".mgz")
SUFFIXES = (*NIBABEL_SUFFIXES, ".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".gipl.gz", ".vtk", ".dcm")
H5_SUFFIXES = (".h5", ".hdf5")  # of RCN's files, which hold many scans

_READ = LoadImage(reader=NibabelReader(), image_only=True, ensure_channel_first=True)


@contextmanager
def kept_locale() -> Iterator[None]:
    """Restore the locale: ITK leaves the C locale behind, in which Python takes text files for ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def read_header(path: Path, series: str | None = None) -> Geometry:
    """Read the grid of a 3D image, without its voxels.

    Args:
        path: an image file, or the folder of a DICOM series.
        series: the UID of the series, for a folder that holds several.

    Raises:
        ValueError: naming the file, if it is missing, not an image, not 3D, empty, or its geometry is degenerate.
    """
    if not path.exists():
        raise VolumeError(f"{path} does not exist. Restore the file, or take it out of the list it is in.")
    check_no_h5(path)
    with readable(path):
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
    return _checked(path, shape, affine)


@kept_locale()
def read_volume(path: Path, series: str | None = None) -> MetaTensor:
    """Read a 3D image as `(1, X, Y, Z)` float32, in its own intensities and axis order, its `affine` in RAS.

    Arguments and errors are those of `read_header`; damaged voxels raise ValueError too.
    """
    affine = torch.from_numpy(read_header(path, series).affine.copy())
    with readable(path):
        if is_nibabel(path):
            voxels = as_meta(_READ(path)).as_tensor()  # its affine may be another one of the header than nibabel's
        else:
            voxels = torch.from_numpy(np.ascontiguousarray(voxels_of(read_itk(path, series, sitk.sitkFloat32))))[None]
    return MetaTensor(voxels, affine=affine)


def read_itk(path: Path, series: str | None = None, pixel: int = sitk.sitkUnknown) -> sitk.Image:
    """Read a file or a DICOM series by ITK, in the stored pixel type or another."""
    return sitk.ReadImage(series_files(path, series) if path.is_dir() else str(path), pixel)


def check_intensities(scan: MetaTensor, path: Path) -> None:
    """Raise ValueError naming the file if a scan has voxels that are not finite, or all equal."""
    if not torch.isfinite(scan).all():
        raise VolumeError(f"{path} has voxels that are NaN or infinite. Mend the file, or leave the scan out.")
    if scan.min() == scan.max():
        raise VolumeError(f"{path} is constant: every voxel is {float(scan.min()):g}. Leave the scan out.")


def as_meta(volume: object) -> MetaTensor:
    """Narrow the type of what MONAI or torch made of a `MetaTensor`; their annotations promise less."""
    if not isinstance(volume, MetaTensor):
        raise TypeError(f"A volume has lost its affine: it is a {type(volume).__name__}.")
    return volume


def scan_name(path: Path) -> str:
    """Name a scan after its file, without the suffix of its format, or after its DICOM folder."""
    name = path.name
    fitting = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix) and len(name) > len(suffix)]
    return name[: len(name) - max(map(len, fitting), default=0)]


def check_no_h5(path: Path) -> None:
    """Raise ValueError, saying what to do, for an HDF5 file, which holds many scans."""
    if path.suffix.lower() in H5_SUFFIXES:
        raise VolumeError(
            f"{path}: HDF5 files are read by the JSON that lists their scans: regcascade prepare liver.json --subset "
            "NAME, or data=rcn_h5 data.root=liver.json."
        )


def is_nibabel(path: Path) -> bool:
    """Whether nibabel reads a file, rather than ITK, by its name."""
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
