"""Errors of unreadable files, and their messages."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

# What nibabel, pydicom and ITK raise for a file that is cut short, damaged or of another kind.
UNREADABLE = (
    ImageFileError, HeaderDataError, zlib.error, struct.error, LookupError, AttributeError,
    OSError, EOFError, RuntimeError, ValueError, OverflowError, MemoryError,
)  # fmt: skip


class VolumeError(ValueError):
    """A file that is no 3D image; the message names it, says what is wrong and what to do."""


def first_line(error: BaseException) -> str:
    """Get the first informative line of an error; ITK begins with its own source location."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception thrown", "/", "sitk::ERROR: Exception"))]
    return (told or lines or [type(error).__name__])[0]


class PlaceWarning(UserWarning):
    """A doubt about where a scan lies; the message names its file."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what nibabel, pydicom and ITK raise for a damaged file into a `VolumeError` that names it."""
    try:
        yield
    except VolumeError:
        raise
    except UNREADABLE as error:
        raise VolumeError(
            f"{path} cannot be read as an image ({first_line(error)}). It may be cut short, damaged or of another kind."
        ) from error
