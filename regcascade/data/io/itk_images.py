"""Read and write scans as ITK images, in the pixel type of their files."""

from pathlib import Path

import SimpleITK as sitk

from regcascade.data.io.errors import VolumeError, first_line
from regcascade.data.io.images import is_nibabel, kept_locale, read_stored, stored_voxels
from regcascade.utils.files import written_in_folder

WRITTEN = (".nii.gz", ".nii", ".mha", ".nrrd")  # formats of one file each


@kept_locale()
def read_scan(path: Path, series: str | None = None) -> sitk.Image:
    """Read a 3D image as an ITK image, in the stored pixel type, or float32 where its header scales the voxels.

    Arguments and errors are those of `read_volume`; a sheared grid, as of a tilted gantry, raises ValueError too.
    """
    geometry, voxels = read_stored(path, series)
    try:
        return geometry.as_itk(voxels)
    except ValueError as error:
        raise VolumeError(f"{path} is no image of ITK's: {error}") from error


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
            if is_nibabel(temporary):  # ITK does not report a full disk
                try:
                    stored_voxels(temporary)
                except (OSError, EOFError, ValueError) as error:
                    raise OSError("the disk is full") from error
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error
