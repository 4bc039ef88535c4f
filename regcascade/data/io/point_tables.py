"""Tables of points to be taken through a transform: their coordinates change, the other columns stay."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from regcascade.data.io.images import LPS_TO_RAS
from regcascade.data.io.landmarks import AXES
from regcascade.geometry.grid import Geometry, Places
from regcascade.utils.files import written_whole

UNITS = ("voxels", "ras", "lps")
RAS_COLUMNS = tuple(f"{axis}_ras_mm" for axis in AXES)  # always written beside the coordinates


@dataclass(frozen=True, eq=False)
class PointTable:
    """Points, and what a CSV file says of them.

    Attributes:
        points: `(K, 3)`, in the unit of the file; NaN where missing.
        columns: the file, cell by cell, as text; its coordinates are in `titles`.
        titles: of the columns x, y and z.
        titled: whether the file names its columns.
    """

    points: Places
    columns: pd.DataFrame
    titles: list[str]
    titled: bool


def read_table(path: Path) -> PointTable:
    """The points of a CSV file, which has the columns x, y, z or no titles and these first; empty cells are missing.

    Raises:
        ValueError: naming the file, if it is missing, no such table or without points.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Give a CSV file with the columns x, y, z.")
    try:
        first = pd.read_csv(path, dtype=str, nrows=1, header=None, encoding="utf-8-sig")
        cells = [str(cell).strip().lower() for cell in first.iloc[0]]
        titled = set(AXES) <= set(cells)
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=0 if titled else None
        ).rename(columns=str)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a table of points ({str(error).splitlines()[0]}).") from error
    if len(cells) < 3 or not len(table):
        raise ValueError(f"{path} has no points: it needs the columns x, y, z and a line for each.")
    titles = [str(table.columns[cells.index(axis) if titled else k]) for k, axis in enumerate(AXES)]
    texts = table[titles].apply(lambda column: column.str.strip())
    numbers = texts.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64, copy=True)
    wrong = ~np.isfinite(numbers) & ~texts.isin(["", "nan", "NaN", "NA"]).to_numpy()
    if wrong.any():
        line = int(wrong.any(1).argmax())
        raise ValueError(f"{path}: {','.join(texts.iloc[line])!r} (point {line + 1}) are no coordinates x,y,z.")
    if np.isnan(numbers).all(1).all():
        raise ValueError(f"{path} has no points: every one of its {len(numbers)} lines has empty coordinates.")
    numbers[np.isnan(numbers).any(1)] = np.nan
    return PointTable(numbers, table, titles, titled)


def to_world(points: Places, unit: str, grid: Geometry) -> Places:
    """Points in voxels of a grid, or in mm of nibabel's or ITK's frame, in mm, RAS."""
    if unit == "voxels":
        return grid.to_world(points)
    return points * np.diag(LPS_TO_RAS)[:3] if unit == "lps" else points


def from_world(places: Places, unit: str, grid: Geometry) -> Places:
    """The way back from `to_world`."""
    if unit == "voxels":
        return grid.to_voxels(places)
    return places * np.diag(LPS_TO_RAS)[:3] if unit == "lps" else places


def write_table(path: Path, table: PointTable, points: Places, places: Places) -> None:
    """Write the table with other coordinates, and the places in mm, RAS, beside them; whole or not at all.

    Raises:
        ValueError: naming the file, if it cannot be written.
    """
    result = table.columns.drop(columns=[name for name in RAS_COLUMNS if name in table.columns])
    for k, (title, column) in enumerate(zip(table.titles, RAS_COLUMNS, strict=True)):
        result[title] = [_text(value) for value in points[:, k]]
        result[column] = [_text(value) for value in places[:, k]]
    if not table.titled:
        result = result.rename(columns=dict(zip(table.titles, AXES, strict=True)))
    try:
        with written_whole(path) as temporary:
            result.to_csv(temporary, index=False, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}") from error


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5f}"
