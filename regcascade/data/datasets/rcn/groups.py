"""One scan of RCN's HDF5 files: a group with its volume, segmentation and points.

A group has `volume` (0..255), and where the scan has them `segmentation` (0 or 255; label values where the JSON names
them) and `point` (voxel coordinates, a negative one where missing).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regcascade.types import Size

VOLUME, SEGMENTATION, POINT = "volume", "segmentation", "point"
FOREGROUND = 128  # a segmentation of one structure is above this inside it


@dataclass(frozen=True)
class Group:
    """Where a scan lies, and what its JSON says of it.

    The file is opened anew for each read: an open one does not survive being carried over to a worker process.

    Attributes:
        path: the HDF5 file.
        name: of the group in it.
        size: sides of the volume in voxels.
        classes: the label values that are named; None where a segmentation is of one structure.
        listed: the JSON that lists the scan.
    """

    path: Path
    name: str
    size: Size
    classes: tuple[int, ...] | None
    listed: Path

    def keys(self) -> set[str]:
        """Look which of `volume`, `segmentation` and `point` the group has, their shapes and types checked.

        Raises:
            ValueError: naming the file and the group, if either is missing, damaged or of another shape.
        """
        with self._open() as found:
            return set(found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Read the arrays of the group as they are; raise ValueError as `keys` does."""
        arrays = {}
        with self._open() as found:
            for key, array in found.items():
                try:
                    arrays[key] = array[...]
                except (OSError, KeyError) as error:
                    raise ValueError(
                        f"{self.path}: {self.name}/{key} cannot be read ({error}). Fetch the file again."
                    ) from error
        return arrays

    def read(self) -> tuple[Float[Tensor, "1 x y z"], Int[Tensor, "1 x y z"] | None, Float[Tensor, "k 3"] | None]:
        """Read the scan.

        Returns:
            The volume, float32 in 0..255; the labels, int16, 1 in the one structure or the values that are named, or
            None; and the points in voxels, NaN where one is missing, or None.

        Raises:
            ValueError: naming the file and the group, if the content is damaged or no number in range.
        """
        where, arrays = f"{self.path}: {self.name}", self.arrays()
        volume, segmentation, point = arrays[VOLUME], arrays.get(SEGMENTATION), arrays.get(POINT)
        if not np.isfinite(volume).all() or volume.min() < 0 or volume.max() > 255:
            raise ValueError(f"{where}/{VOLUME} has values outside 0..255.")
        if volume.min() == volume.max():
            raise ValueError(f"{where}/{VOLUME} is constant; leave the scan out of its subset.")
        labels = points = None
        if point is not None:
            values = torch.from_numpy(point.astype(np.float32))
            points = values.where((values >= 0).all(1, keepdim=True), torch.nan)
            if (points > torch.tensor(volume.shape) - 0.5).any():
                raise ValueError(
                    f"{where}/{POINT} has a landmark outside the volume, whose sides are {volume.shape}. They must be "
                    "voxel coordinates, counted from 0; negative ones where missing."
                )
        if segmentation is not None:
            rounded = np.rint(segmentation)
            named = None if self.classes is None else np.isin(rounded, self.classes)
            labels = segmentation > FOREGROUND if named is None else np.where(named, rounded, 0)
        return (
            torch.from_numpy(volume.astype(np.float32))[None],
            None if labels is None else torch.from_numpy(labels.astype(np.int16))[None],
            points,
        )

    @contextmanager
    def _open(self) -> Iterator[dict[str, h5py.Dataset]]:
        """Open the arrays of the group, checked without reading them."""
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "does not exist"
            raise ValueError(
                f"{self.path} {what}. Put the authors' file there, or choose only subsets and schemes whose files you "
                "have (data.train=null to evaluate without those of training)."
            )
        try:
            with h5py.File(self.path, "r") as file:
                group = file.get(self.name)
                if not isinstance(group, h5py.Group) or not isinstance(group.get(VOLUME), h5py.Dataset):
                    what = f"no {VOLUME!r} in its group" if isinstance(group, h5py.Group) else "no group"
                    raise ValueError(f"{self.path} has {what} {self.name!r}, which a subset of {self.listed} lists.")
                found = {key: group.get(key) for key in (VOLUME, SEGMENTATION, POINT)}
                found = {key: array for key, array in found.items() if isinstance(array, h5py.Dataset)}
                for key, array in found.items():
                    right = array.shape == self.size if key != POINT else array.ndim == 2 and array.shape[1] == 3
                    if not right:
                        wanted = "(K, 3)" if key == POINT else self.size
                        raise ValueError(
                            f"{self.path}: {self.name}/{key} has the shape {array.shape}, and should have {wanted}."
                        )
                    if array.dtype.kind not in "buif":
                        raise ValueError(f"{self.path}: {self.name}/{key} holds no numbers, but {array.dtype}.")
                yield found
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as HDF5 ({error}). It may be damaged; fetch it again."
            ) from error
