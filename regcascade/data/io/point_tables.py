"""Tables of points: landmarks of a scan, and points to take through a transform.

A table is a CSV, or a .fcsv or .mrk.json of Slicer's, whose points are in mm of the frame that it names. A CSV's first
line names the columns, x, y and z among them in any order and case; without titles it has exactly three columns. A line
that is blank, or has an empty or NaN coordinate, is a missing point, so that the others keep their number; blank lines
at the end do not count. A line with more cells than there are columns is an error.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.geometry.grid import LPS_TO_RAS, Geometry, Places
from regcascade.utils.files import parse_json, written_whole

AXES = ("x", "y", "z")
UNITS = ("voxels", "ras", "lps")
FRAMES = {"RAS": "ras", "0": "ras", "LPS": "lps", "1": "lps"}  # as Slicer names and numbers them
SUFFIXES = (".csv", ".fcsv", ".json")
RAS_COLUMNS = tuple(f"{axis}_ras_mm" for axis in AXES)  # always written beside the coordinates
MISSING = ("", "nan", "na")
Row = tuple[int, list[str]]  # the number of a line, and its cells
BORDER = 0.5001  # voxels from the outermost voxel centres to the border of an image, with some rounding


@dataclass(frozen=True, eq=False)
class PointTable:
    """Points, and the whole file they come from."""

    points: Places  # `(K, 3)`, in the unit of the file; NaN where missing
    columns: pd.DataFrame  # all cells of the file, as text
    titles: list[str]  # of the columns x, y and z
    unit: str | None = None  # of `UNITS`, where the file says it


def read_table(path: Path) -> PointTable:
    """Read a table of points.

    Raises:
        ValueError: naming the file and line, if it is missing, no such table or without points.
    """
    table = _read(path)
    if np.isnan(table.points).all():
        raise ValueError(f"{path} has no points: every one of its {len(table.points)} lines has empty coordinates.")
    return table


def read_points(path: Path, grid: Geometry) -> Float[Tensor, "k 3"]:
    """Read landmarks, `(K, 3)` in voxels along the array axes of an image on this grid; NaN where one is missing.

    Raises:
        ValueError: naming the file and line, if it is missing, no such table, or a landmark lies outside the image.
    """
    table = _read(path)
    points = torch.from_numpy(grid.to_voxels(to_world(table.points, table.unit or "voxels", grid))).float()
    outside = ~_inside(points, grid.shape) & ~points.isnan().any(1)
    if outside.any():
        number = int(outside.int().argmax())
        raise ValueError(
            f"{path}: landmark {number + 1}, {points[number].tolist()}, lies outside its image {grid.shape}, one of "
            f"{int(outside.sum())} that do. In a CSV they must be voxel coordinates x,y,z of it, counted from 0, not "
            "mm; leave the cells of a missing one empty."
        )
    return points


def within(points: Float[Tensor, "k 3"], shape: Sequence[int]) -> Float[Tensor, "k 3"]:
    """Set points to NaN that lie beyond the borders of an image, half a voxel beyond the outermost centres."""
    return points.where(_inside(points, shape)[:, None], torch.nan)


def to_world(points: Places, unit: str, grid: Geometry) -> Places:
    """Convert points in voxels of a grid, or in mm of nibabel's (`ras`) or ITK's frame (`lps`), to mm, RAS."""
    if unit == "voxels":
        return grid.to_world(points)
    return points * np.diag(LPS_TO_RAS)[:3] if unit == "lps" else points


def from_world(places: Places, unit: str, grid: Geometry) -> Places:
    """Convert points back from `to_world`."""
    if unit == "voxels":
        return grid.to_voxels(places)
    return places * np.diag(LPS_TO_RAS)[:3] if unit == "lps" else places


def write_table(path: Path, table: PointTable, points: Places, places: Places) -> None:
    """Write the table with new coordinates, and the places in mm, RAS, beside them; whole or not at all.

    Raises:
        ValueError: naming the file, if it cannot be written.
    """
    result = table.columns.drop(columns=list(RAS_COLUMNS), errors="ignore")
    for k, (title, column) in enumerate(zip(table.titles, RAS_COLUMNS, strict=True)):
        result[title], result[column] = points[:, k], places[:, k]
    try:
        with written_whole(path) as temporary:
            result.to_csv(temporary, index=False, encoding="utf-8", float_format="%.5f")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}") from error


def _read(path: Path) -> PointTable:
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Give a CSV file with the columns x, y, z.")
    try:
        read = {".fcsv": _fcsv, ".json": _markups}.get(path.suffix.lower(), _csv)
        unit, rows = read(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of points ({error}).") from error
    full = [index for index, (_, cells) in enumerate(rows) if cells]
    if not full:
        raise ValueError(f"{path} cannot be read as a table of points (it is empty).")
    (_, first), *rows = rows[full[0] : full[-1] + 1]
    lowered = [cell.strip().lower() for cell in first]
    titled = set(AXES) <= set(lowered)
    if not titled and len(lowered) > len(AXES):
        raise ValueError(
            f"{path} has {len(lowered)} columns without titles: name them in its first line, x, y and z among them."
        )
    columns, rows = (first, rows) if titled else (list(AXES), [(1, first), *rows])
    if not rows or len(lowered) < len(AXES):
        raise ValueError(f"{path} has no points: it needs the columns x, y, z and a line for each.")
    places = [lowered.index(axis) for axis in AXES] if titled else [0, 1, 2]
    points = [_point(cells, places, len(columns), f"{path}, line {number}") for number, cells in rows]
    filled = [[*cells, *[""] * len(columns)][: len(columns)] for _, cells in rows]
    return PointTable(
        np.array(points), pd.DataFrame(filled, columns=columns), [columns[place] for place in places], unit
    )


def _csv(text: str) -> tuple[str | None, list[Row]]:
    lines = csv.reader(io.StringIO(text))
    return None, [(lines.line_num, cells) for cells in lines]


def _fcsv(text: str) -> tuple[str | None, list[Row]]:
    """Read Slicer's .fcsv. Slicer 5 writes two cells more than it names: 2 where a position is defined, and a flag."""
    said = dict(re.findall(r"^# *(\w+) *= *(.*?)\s*$", text, re.MULTILINE))
    if said.get("CoordinateSystem") not in FRAMES or "columns" not in said:
        raise ValueError("it lacks the lines '# CoordinateSystem = LPS', or RAS, and '# columns = id,x,y,z,...'")
    columns = said["columns"].split(",")
    rows = [(number, cells) for number, cells in _csv(text)[1] if not "".join(cells).startswith("#")]
    for _, cells in rows:
        if cells[len(columns) : len(columns) + 1] not in ([], [""], ["2"]):
            cells[:] = [""]
        del cells[len(columns) :]
    return FRAMES[said["CoordinateSystem"]], [(0, columns), *rows]


def _markups(text: str) -> tuple[str | None, list[Row]]:
    """Read Slicer's .mrk.json; a row is numbered as its point. One whose position is not defined is missing."""
    try:
        (markup,) = parse_json(text)["markups"]
        if "mm" not in markup.get("coordinateUnits", "mm"):
            raise ValueError
        rows = [(0, ["label", *AXES])]
        for number, point in enumerate(markup["controlPoints"], start=1):
            x, y, z = point["position"] if point.get("positionStatus", "defined") == "defined" else [""] * 3
            rows.append((number, [str(point.get("label", "")), str(x), str(y), str(z)]))
        return FRAMES[markup.get("coordinateSystem", "LPS")], rows
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError("it is no .mrk.json with one list of points, in mm, LPS or RAS") from error


def _point(row: Sequence[str], places: Sequence[int], columns: int, where: str) -> list[float]:
    """Parse the coordinates of a line; all are NaN where one is missing."""
    if any(cell.strip() for cell in row[columns:]):
        raise ValueError(f"{where} has {len(row)} cells for {columns} columns: {','.join(row)!r}.")
    if not any(cell.strip() for cell in row):
        return [np.nan] * 3
    try:
        texts = [row[place].strip() for place in places]
        values = [np.nan if text.lower() in MISSING else float(text) for text in texts]
    except (ValueError, IndexError):
        values = [np.inf]
    if np.isinf(values).any():
        raise ValueError(f"{where}: {','.join(row)!r} are no coordinates x,y,z.")
    return [np.nan] * 3 if np.isnan(values).any() else values


def _inside(points: Tensor, shape: Sequence[int]) -> Tensor:
    """Tell which points lie within the borders of an image; missing ones do not."""
    return ((points >= -BORDER) & (points <= torch.tensor(list(shape)) - 1 + BORDER)).all(1)
