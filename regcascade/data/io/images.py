"""Read a scan of any format, with where its voxels lie in the world.

nibabel reads NIfTI, Analyze, MGH and MINC. SimpleITK reads MetaImage, NRRD, DICOM and the rest of ITK's formats; its
frame (LPS) is turned into nibabel's (RAS).
"""

import gzip
import locale
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.analyze import AnalyzeHeader
from nibabel.minc1 import MincHeader
from nibabel.nifti1 import Nifti1Pair
from nibabel.spatialimages import HeaderDataError, SpatialImage

from regcascade.data.io.dicom import is_dicom, read_series, series_grid
from regcascade.data.io.errors import PlaceWarning, VolumeError, readable
from regcascade.geometry.grid import Geometry, itk_affine, voxels_of

# File names that nibabel reads; everything else goes to ITK.
NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".mgh", ".mgz", ".mnc")
SUFFIXES = (*NIBABEL_SUFFIXES, ".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".gipl.gz", ".vtk", ".dcm")
H5_SUFFIXES = (".h5", ".hdf5")  # of RCN's files, which hold many scans
CHUNK = 2**24  # bytes


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
        if is_nibabel(path):
            image = nibabel.load(path)
            if not isinstance(image, SpatialImage):  # such as CIFTI-2, which is called .nii too
                raise VolumeError(f"{path} holds no grid of voxels ({type(image).__name__}): give a 3D image.")
            if image.get_data_dtype().kind not in "iuf":
                raise VolumeError(f"{path} holds {image.get_data_dtype()} voxels; give real numbers, one a voxel.")
            shape, affine = tuple(int(side) for side in image.shape), np.asarray(image.affine, dtype=float)
            if doubt := _doubt(image):
                warnings.warn(f"{path} {doubt}", PlaceWarning, stacklevel=2)
        elif is_dicom(path):
            shape, affine = series_grid(path, series)
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            components = reader.GetNumberOfComponents()
            shape = tuple(reader.GetSize()) + ((components,) if components > 1 else ())
            affine = itk_affine(reader)
    return _checked(path, shape, affine)


def read_volume(path: Path, series: str | None = None) -> MetaTensor:
    """Read a 3D image as `(1, X, Y, Z)` float32, in its own intensities and axis order, its `affine` in RAS.

    Arguments and errors are those of `read_header`; damaged voxels raise ValueError too.
    """
    geometry, voxels = read_stored(path, series)
    whole = torch.from_numpy(np.ascontiguousarray(voxels, np.float32))[None]
    return MetaTensor(whole, affine=torch.from_numpy(geometry.affine.copy()))


@kept_locale()
def read_stored(path: Path, series: str | None = None) -> tuple[Geometry, np.ndarray]:
    """Read grid and `(X, Y, Z)` voxels of a 3D image, in the stored type, or float32 where its header scales them.

    Arguments and errors are those of `read_volume`.
    """
    geometry = read_header(path, series)
    with readable(path):
        if is_nibabel(path):
            voxels = stored_voxels(path)
        elif is_dicom(path):
            voxels = voxels_of(read_series(path, series))
        else:
            image = sitk.ReadImage(str(path))
            _check_whole(path, image)
            voxels = sitk.GetArrayFromImage(image).reshape(geometry.shape[::-1]).T
        return geometry, voxels.reshape(geometry.shape)


def stored_voxels(path: Path) -> np.ndarray:
    """Read voxels of any number of axes by nibabel, in the stored type, or float32 where the header scales them.

    A gzip stream is read to its end, where its checksum is compared.
    """
    file: Any = nibabel.load(path)
    with ExitStack() as streams:
        packed = [part for part in file.file_map.values() if str(part.filename).lower().endswith("gz")]
        for part in packed:
            part.fileobj = streams.enter_context(gzip.open(part.filename))
        file = type(file).from_file_map(file.file_map)
        voxels = np.asanyarray(file.dataobj)
        for part in packed:
            while part.fileobj.read(CHUNK):
                pass
    if voxels.dtype.kind not in "iuf":
        raise ValueError(f"its voxels are {voxels.dtype}, and must be real numbers, one each.")
    stored = voxels.dtype == file.get_data_dtype()
    return voxels.astype(voxels.dtype.newbyteorder("=") if stored else np.float32, copy=False)


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


def _doubt(image: SpatialImage) -> str | None:
    """Say why ITK, and with it ANTs and Slicer, may place a scan elsewhere than nibabel does, if so."""
    header, held = image.header, "A transform made here is right for that place alone."
    if isinstance(header, MincHeader):
        return f"is placed in RAS, as MINC says, where ITK before version 6 takes its numbers for LPS. {held}"
    if not isinstance(header, AnalyzeHeader) or len(image.shape) < 3:
        return None
    if isinstance(image, Nifti1Pair) and (header["sform_code"] or header["qform_code"]):
        with suppress(ValueError, HeaderDataError):  # a qform that is no rotation, or a grid without volume
            x, y, z = image.shape[:3]
            sform, qform = Geometry((x, y, z), image.get_sform()), Geometry((x, y, z), image.get_qform())
            if header["sform_code"] and header["qform_code"] and not sform.same_as(qform, 0.1):
                return f"is placed by its sform, where ITK, ANTs and Slicer may take its qform, which differs. {held}"
        return None
    if not np.allclose(image.affine, header.get_base_affine()):  # placed by SPM's file beside it
        return None
    return (
        "says not where it lies (no qform or sform) and is placed by nibabel's rule, its centre at 0 mm and its first "
        f"axis to the left, where ITK, ANTs and Slicer have rules of their own. {held}"
    )


def _check_whole(path: Path, image: sitk.Image) -> None:
    """Raise what `readable` knows if ITK has read a damaged MetaImage, GIPL or VTK file without an error."""
    suffix, size = path.suffix.lower(), image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
    content = path.read_bytes() if suffix in (".mha", ".mhd", ".gipl", ".vtk") else b""
    voxels = content[256:] if suffix == ".gipl" else content.partition(b"LOOKUP_TABLE default\n")[2] or content
    if suffix in (".gipl", ".vtk") and len(voxels) < size and b"ASCII" not in content[:512]:
        raise ValueError(f"it has {len(voxels)} bytes of voxels where {size} belong")
    head, _, rest = content.partition(b"ElementDataFile")
    if re.search(rb"CompressedData\s*=\s*True", head):
        name, _, data = rest.partition(b"\n")
        beside = path.parent / name.strip(b" =\r").decode()
        zlib.decompress(beside.read_bytes() if beside.is_file() else data, wbits=47)


def _checked(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Geometry:
    while len(shape) > 3 and shape[-1] == 1:  # as ANTs and many scanners write a single time point or channel
        shape = shape[:-1]
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
