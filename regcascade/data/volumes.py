"""Reading a scan in any format, with where its voxels lie in the world.

NIfTI and whatever else nibabel reads comes through MONAI's nibabel reader; MetaImage, NRRD, DICOM series folders and
the rest of ITK's formats through SimpleITK, whose frame (LPS) is turned into nibabel's (RAS).
"""

import locale
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from monai.data.image_reader import NibabelReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

# File names that nibabel reads; everything else goes to ITK.
NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".mgh", ".mgz")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".gipl.gz", ".vtk", ".dcm")
SUFFIXES = NIBABEL_SUFFIXES + ITK_SUFFIXES
H5_SUFFIXES = (".h5", ".hdf5")  # of the first paper's files, which hold many scans

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
POSITION, SLICE_TOLERANCE = "0020|0032", 0.02  # DICOM's ImagePositionPatient; of the distance between slices

_READ = LoadImage(reader=NibabelReader(), image_only=True, ensure_channel_first=True)
# What nibabel and ITK raise for a file that is cut short, damaged or of another kind; MONAI wraps some in RuntimeError.
UNREADABLE = (
    ImageFileError, HeaderDataError, zlib.error,
    OSError, EOFError, RuntimeError, ValueError, OverflowError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is known of an image without reading its voxels.

    Attributes:
        shape: voxels along each array axis.
        affine: `(4, 4)`, from voxel indices to mm in RAS.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm per voxel along each array axis."""
        x, y, z = (float(step) for step in voxel_sizes(self.affine))
        return x, y, z


@contextmanager
def kept_locale() -> Iterator[None]:
    """Put the locale back: ITK leaves the C locale behind, in which Python takes text files for ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def read_header(path: Path, series: str | None = None) -> Header:
    """The shape and place of a 3D image, without its voxels.

    Args:
        path: an image file, or the folder of a DICOM series.
        series: the UID of the series, for a folder that holds several.

    Raises:
        ValueError: naming the file, if it is missing, not an image, not 3D, empty, or its geometry is degenerate.
    """
    _check_exists(path)
    _check_no_h5(path)
    try:
        if path.is_dir():
            shape, affine = _series_header(path, series)
        elif _is_nibabel(path):
            image = nibabel.load(path)
            shape, affine = tuple(int(side) for side in image.shape), np.asarray(image.affine, dtype=float)
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            components = reader.GetNumberOfComponents()
            shape = tuple(reader.GetSize()) + ((components,) if components > 1 else ())
            affine = _affine(reader)
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
    try:
        if path.is_dir():
            image = sitk.ReadImage(series_files(path, series), sitk.sitkFloat32)
        elif _is_nibabel(path):
            return _READ(path)
        else:
            image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except UNREADABLE as error:
        raise VolumeError(
            f"{path} cannot be read ({first_line(error)}). It may be cut short or damaged; fetch it again."
        ) from error
    voxels = np.ascontiguousarray(sitk.GetArrayFromImage(image).T)
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(header.affine))


def scan_name(path: Path) -> str:
    """A scan's name: its file name without the suffix of its format; the name of a DICOM folder."""
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), "")
    return path.name[: -len(suffix)] if suffix and len(path.name) > len(suffix) else path.name


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; ITK begins with where in its source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception thrown", "/", "sitk::ERROR: Exception"))]
    return (told or lines or [type(error).__name__])[0]


class VolumeError(ValueError):
    """A file that is no 3D image; the message names it, says what is wrong and what to do."""


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise VolumeError(f"{path} does not exist. Restore the file, or take it out of the list it is in.")


def _check_no_h5(path: Path) -> None:
    if path.suffix.lower() in H5_SUFFIXES:
        raise VolumeError(
            f"{path}: HDF5 files are read by the JSON that lists their scans: regcascade prepare liver.json --subset "
            "NAME, or data=rcn_h5 data.root=liver.json."
        )


def _is_nibabel(path: Path) -> bool:
    return path.name.lower().endswith(NIBABEL_SUFFIXES)


def _checked(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Header:
    if len(shape) != 3:
        raise VolumeError(f"{path} has {len(shape)} axes, {shape}: give 3D images, one channel or time point a file.")
    if min(shape) < 1:
        raise VolumeError(f"{path} is empty: its shape is {shape}.")
    spacing = voxel_sizes(affine)
    if not (np.isfinite(affine).all() and (spacing > 0).all() and abs(np.linalg.det(affine[:3, :3])) > 0):
        raise VolumeError(
            f"{path} has a degenerate geometry: its voxels measure {spacing.tolist()} mm. Mend its header."
        )
    x, y, z = shape
    return Header((x, y, z), affine)


def _affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """From voxel indices to RAS mm, of an ITK image or header of three or more axes; other ones have none."""
    axes = image.GetDimension()
    if axes < 3:
        return np.eye(4)
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def series_files(folder: Path, series: str | None = None) -> list[str]:
    """The files of a folder's one DICOM series, or of the one that was asked for, in the order of their slices."""
    found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        raise VolumeError(f"{folder} holds no DICOM series. Give an image file, or the folder of one series.")
    listed = "; ".join(f"{uid} ({len(_files_of(folder, uid))} files)" for uid in found)
    if series is None and len(found) > 1:
        raise VolumeError(f"{folder} holds {len(found)} DICOM series: {listed}. Choose one by its UID (series).")
    if series is not None and series not in found:
        raise VolumeError(f"{folder} holds no DICOM series {series}, but {listed}.")
    return _files_of(folder, series or found[0])


def _files_of(folder: Path, uid: str) -> list[str]:
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def _series_header(folder: Path, series: str | None) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine from the headers of a series' files, whose slices must be evenly spaced."""
    files = series_files(folder, series)
    first = _dicom_header(files[0])
    affine = _affine(first)
    if len(files) == 1:
        return tuple(first.GetSize()), affine
    positions = np.array([_position(file) for file in files]) * np.diag(LPS_TO_RAS)[:3]
    steps = np.diff(positions, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    usual = float(np.median(lengths))
    if usual == 0 or np.abs(lengths - usual).max() > SLICE_TOLERANCE * usual:
        worst = int(np.abs(lengths - usual).argmax())
        raise VolumeError(
            f"{folder}: its slices are not evenly spaced ({lengths[worst]:g} mm between {Path(files[worst]).name} and "
            f"{Path(files[worst + 1]).name}, {usual:g} mm elsewhere): a slice is missing or doubled. Fetch it again."
        )
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(files) - 1)
    affine[:3, 3] = positions[0]
    return (*first.GetSize()[:2], len(files)), affine


def _dicom_header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _position(file: str) -> list[float]:
    """Where the centre of a slice's first voxel lies, in mm, LPS."""
    reader = _dicom_header(file)
    if not reader.HasMetaDataKey(POSITION):
        raise VolumeError(f"{file} does not say where its slice lies (DICOM's ImagePositionPatient is missing).")
    return [float(value) for value in reader.GetMetaData(POSITION).split("\\")]
