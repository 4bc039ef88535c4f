"""Open HDF5 files from elsewhere, whose links could lead to any other file of the user's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; raise ValueError if it is none, or if a part of it lies in another file."""
    try:
        with h5py.File(path, "r") as file:

            def outside(name: str, link: object) -> str | None:
                node = file.get(name) if isinstance(link, h5py.HardLink) else None
                stored = isinstance(node, h5py.Dataset) and (node.external or node.is_virtual)
                return name if stored or isinstance(link, h5py.ExternalLink) else None

            if name := file.visititems_links(outside):
                raise ValueError(f"{path}: {name} lies in another file, which is not read. Get a file that is whole.")
            yield file
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}). It may be damaged; get it again.") from error
