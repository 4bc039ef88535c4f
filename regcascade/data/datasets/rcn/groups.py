"""One scan of RCN's HDF5 files: a group with its volume, segmentation and points.

A group has `volume` (0..255), and where the scan has them `segmentation` (0 or 255; label values where the JSON names
them) and `point` (voxel coordinates, a negative one where missing).
"""

from collections.abc import Collection, Iterator
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
class H5Scan:
    """What a group holds.

    Attributes:
        volume: `(1, X, Y, Z)` float32 in 0..255.
        labels: `(1, X, Y, Z)` int16, 1 in the one structure, or the values that are named; None without a segmentation.
        points: `(K, 3)` in voxels, NaN where one is missing, or None.
    """

    volume: Float[Tensor, "1 x y z"]
    labels: Int[Tensor, "1 x y z"] | None
    points: Float[Tensor, "k 3"] | None


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """One of the authors' files, open for reading.

    Raises:
        ValueError: naming the file, if it is missing, damaged or no HDF5.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(
            f"{path} {what}. Put the authors' file there, or choose only subsets and schemes whose files you have "
            "(data.train=null to evaluate without those of training)."
        )
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}). It may be damaged; fetch it again.") from error
    with file:
        yield file


def check_group(file: h5py.File, path: Path, name: str, size: Size, listed: Path) -> set[str]:
    """What a scan's group has of `volume`, `segmentation` and `point`, the shapes and types checked.

    Args:
        file: the open file.
        path: of it, for messages.
        name: of the group.
        size: sides of every volume in voxels.
        listed: the JSON that lists the scan, for messages.

    Raises:
        ValueError: naming the file and the group, if the group or its volume is missing or not as it should be.
    """
    group = _item(file, name, path)
    if not isinstance(group, h5py.Group) or not isinstance(_item(group, VOLUME, path), h5py.Dataset):
        what = f"no {VOLUME!r} in its group" if isinstance(group, h5py.Group) else "no group"
        raise ValueError(f"{path} has {what} {name!r}, which a subset of {listed} lists.")
    has = {key for key in (VOLUME, SEGMENTATION, POINT) if isinstance(_item(group, key, path), h5py.Dataset)}
    for key in has:
        shape, kind = group[key].shape, group[key].dtype.kind
        right = shape == size if key != POINT else len(shape) == 2 and shape[1] == 3
        wanted = "(K, 3)" if key == POINT else size
        if not right:
            raise ValueError(f"{path}: {name}/{key} has the shape {shape}, and should have {wanted}.")
        if kind not in "buif":
            raise ValueError(f"{path}: {name}/{key} holds no numbers, but {group[key].dtype}.")
    return has


def read_group(file: h5py.File, path: Path, name: str, has: Collection[str], classes: Collection[int] | None) -> H5Scan:
    """Read what a group that was checked has.

    Args:
        file: the open file.
        path: of it, for messages.
        name: of the group.
        has: what `check_group` found.
        classes: the label values that are named; None where a segmentation is of one structure.

    Raises:
        ValueError: naming the file and the group, if its content is damaged or no number in range.
    """
    arrays = {key: read_array(file, path, name, key) for key in has}
    volume = arrays[VOLUME]
    if not np.isfinite(volume).all() or volume.min() < 0 or volume.max() > 255:
        raise ValueError(f"{path}: {name}/{VOLUME} has values outside 0..255.")
    if volume.min() == volume.max():
        raise ValueError(f"{path}: {name}/{VOLUME} is constant; leave the scan out of its subset.")
    points = _points(arrays[POINT]) if POINT in has else None
    if points is not None and (points > torch.tensor(volume.shape) - 0.5).any():
        raise ValueError(
            f"{path}: {name}/{POINT} has a landmark outside the volume, whose sides are {volume.shape}. They must be "
            "voxel coordinates, counted from 0; negative ones where missing."
        )
    return H5Scan(
        volume=torch.from_numpy(volume.astype(np.float32))[None],
        labels=_labels(arrays[SEGMENTATION], classes) if SEGMENTATION in has else None,
        points=points,
    )


def read_array(file: h5py.File, path: Path, name: str, key: str) -> np.ndarray:
    """One array of a group; raises ValueError naming the file and the group if it cannot be read."""
    try:
        return file[name][key][...]
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: {name}/{key} cannot be read ({error}). Fetch the file again.") from error


def _item(group: h5py.Group, name: str, path: Path) -> object:
    """A member of a group, None where there is none; damage inside the file shows here too."""
    try:
        return group.get(name)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: {name} cannot be read ({error}). Fetch the file again.") from error


def _labels(segmentation: np.ndarray, classes: Collection[int] | None) -> Tensor:
    """Label values, 0 where it is none that is named."""
    if classes is None:
        labels = segmentation > FOREGROUND
    else:
        rounded = np.rint(segmentation)
        labels = np.where(np.isin(rounded, list(classes)), rounded, 0)
    return torch.from_numpy(labels.astype(np.int16))[None]


def _points(points: np.ndarray) -> Tensor:
    values = torch.from_numpy(points.astype(np.float32))
    return values.where((values >= 0).all(1, keepdim=True), torch.nan)
