"""Read and write scans as ITK images, in the pixel type of their files."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from regcascade.data.io.errors import VolumeError, first_line, readable
from regcascade.data.io.images import is_nibabel, kept_locale, read_header, read_itk
from regcascade.geometry.grid import Geometry
from regcascade.utils.files import written_in_folder

WRITTEN = (".nii.gz", ".nii", ".mha", ".nrrd")  # formats of one file each
CHUNK = 2**24  # bytes


@kept_locale()
def read_scan(path: Path, series: str | None = None) -> sitk.Image:
    """Read a 3D image as an ITK image, in the pixel type and the intensities of its file.

    nibabel reads what it can, so that a NIfTI file lies where `read_volume` puts it; where its header scales the voxels
    it becomes float32. Arguments and errors are those of `read_header`; a sheared grid raises ValueError too.
    """
    geometry = read_header(path, series)
    if is_nibabel(path):
        with readable(path):
            voxels = stored_voxels(path)
        try:
            return geometry.as_itk(voxels)
        except ValueError as error:
            raise VolumeError(f"{path} is no image of ITK's: {error}") from error
    with readable(path):
        image = read_itk(path, series)
    if not Geometry.of_image(image).same_as(geometry):  # a tilted gantry shifts every slice, which ITK leaves out
        raise ValueError(
            f"{path} lies on a sheared grid, as of a tilted gantry, but ITK needs right angles. Resample the scan onto "
            "a grid with right angles first."
        )
    return image


def stored_voxels(path: Path) -> np.ndarray:
    """Read voxels of any number of axes by nibabel, in the stored type, or float32 where the header scales them."""
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
    """Raise OSError if a NIfTI file is shorter than its voxels; ITK does not report a full disk."""
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
