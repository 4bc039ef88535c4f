"""What unreadable files raise, and how it is told."""

import zlib

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

# What nibabel and ITK raise for a file that is cut short, damaged or of another kind; MONAI wraps some in RuntimeError.
UNREADABLE = (
    ImageFileError, HeaderDataError, zlib.error,
    OSError, EOFError, RuntimeError, ValueError, OverflowError, MemoryError,
)  # fmt: skip


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; ITK begins with where in its source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception thrown", "/", "sitk::ERROR: Exception"))]
    return (told or lines or [type(error).__name__])[0]


class VolumeError(ValueError):
    """A file that is no 3D image; the message names it, says what is wrong and what to do."""
