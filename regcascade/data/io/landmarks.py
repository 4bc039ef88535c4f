"""Landmarks of a scan: a file of voxel coordinates, and where preprocessing takes them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

AXES = ("x", "y", "z")


def read_points(path: Path, shape: Sequence[int]) -> Float[Tensor, "k 3"]:
    """The landmarks of a CSV file, `(K, 3)` in voxels of their image.

    Each line has the coordinates x, y, z along the array axes, counted from 0. The first line may name the columns, of
    which others are then ignored. A coordinate that is left empty or NaN makes a landmark missing: NaN.

    Args:
        path: the file.
        shape: of the image, in voxels.

    Raises:
        ValueError: naming the file and line, if it is missing or no such file, has no landmark, or one lies outside the
            image, as coordinates in mm would.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Restore the file of landmarks, or take it out of the list it is in.")
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of landmarks ({error}).") from error
    first = [cell.strip().lower() for cell in rows[0]] if rows else []
    titled = set(AXES) <= set(first)
    columns = [first.index(axis) for axis in AXES] if titled else [0, 1, 2]
    points = torch.tensor([_numbers(row, columns, path) for row in rows[titled:]])
    if not len(points):
        raise ValueError(f"{path} has no landmarks.")
    inside = _inside(points, shape)
    outside = ~inside & ~points.isnan().any(1)
    if outside.any():
        number = int(outside.int().argmax())
        raise ValueError(
            f"{path}: landmark {number + 1}, {points[number].tolist()}, lies outside its image {tuple(shape)}, one of "
            f"{int(outside.sum())} that do. They must be voxel coordinates x,y,z of it, counted from 0, not mm; leave "
            "the cells of a missing one empty."
        )
    return points.where(inside[:, None], torch.nan)


def within(points: Float[Tensor, "k 3"], shape: Sequence[int]) -> Float[Tensor, "k 3"]:
    """Points, NaN where they lie beyond the borders of an image."""
    return points.where(_inside(points, shape)[:, None], torch.nan)


def _inside(points: Tensor, shape: Sequence[int]) -> Tensor:
    """Which points lie within the borders of an image; missing ones do not."""
    return ((points >= -0.5) & (points <= torch.tensor(list(shape)) - 0.5)).all(1)


def _numbers(row: Sequence[str], columns: Sequence[int], path: Path) -> list[float]:
    try:
        return [float(row[column].strip() or "nan") for column in columns]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: {','.join(row)!r} are no voxel coordinates x,y,z.") from error
