"""A CSV file that grows row by row, and that a later process can go on with after the first was killed."""

import csv
import glob
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from regcascade.utils.files import appended, written_whole

_PART = ".part"


class GrowingTable:
    """Rows appended to a CSV file, each written out at once; nothing is kept in memory.

    A last line that a kill has torn is dropped when the file is opened.

    Args:
        path: the file; its columns are those of its first row. A number that is NaN becomes an empty cell.
        fresh: whether to empty it first.
    """

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path = path
        if fresh:
            path.write_bytes(b"")
        elif path.is_file():
            drop_torn_line(path)
        with path.open("a", encoding="utf-8", newline="") as file:  # makes it where there is none
            empty = file.tell() == 0
        self._columns = [] if empty else pd.read_csv(path, nrows=0).columns.tolist()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            ValueError: if its columns are not those of the file.
            NotWritten: if the disk is full; the rows before are kept.
        """
        columns = self._columns or list(row)
        if list(row) != columns:
            differ = ", ".join(sorted(set(row) ^ set(columns))) or "their order"
            raise ValueError(f"{self.path} has other columns than this evaluation ({differ}): write elsewhere.")
        with appended(self.path) as file:
            writer = csv.writer(file, lineterminator="\n")
            if not self._columns:
                writer.writerow(columns)
            writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in row.values()])
        self._columns = columns


def part_of(path: Path, rank: int) -> Path:
    """The file for the rows of one of several processes that share a table, until they are gathered."""
    return path.with_name(f"{path.name}.{rank}{_PART}")


def parts_of(path: Path) -> list[Path]:
    """The files of rows that were not gathered into a table yet, of any number of processes."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.*{_PART}"))


def gather(path: Path, place: Callable[[Mapping[str, str]], tuple[int, ...] | None]) -> None:
    """Put the rows of a table and of its parts in order into the table, and remove the parts.

    It may be killed at any moment and done again. Lines that a kill has torn are dropped.

    Args:
        path: the table; made, empty, where there is none.
        place: of a row, told as text by column: rows go by it, of those with the same the first is kept, and those
            with None are dropped.

    Raises:
        ValueError: if the columns of two files differ.
    """
    parts = parts_of(path)
    lines: dict[tuple[int, ...], str] = {}
    header = ""
    for file in (path, *parts):
        if not file.is_file():
            continue
        drop_torn_line(file)
        with file.open(encoding="utf-8", newline="") as rows:
            first = next(rows, "")
            if header and first and first != header:
                raise ValueError(f"{file} has other columns than {path}: they are of different evaluations.")
            header = header or first
            columns = next(csv.reader([first]), [])
            for line in rows:
                where = place(dict(zip(columns, next(csv.reader([line])), strict=True)))
                if where is not None:
                    lines.setdefault(where, line)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as new:
        new.write(header)
        new.writelines(lines[where] for where in sorted(lines))
    for file in parts:
        file.unlink()


def read_table(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Read a table that `GrowingTable` wrote, exactly: the columns `text` as they stand, the others as numbers."""
    if path.stat().st_size == 0:
        return pd.DataFrame(columns=list(text), dtype=str)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # so that a scan called NA keeps its name
    for column in table.columns.difference(list(text)):
        table[column] = [float(cell) if cell else math.nan for cell in table[column]]
    return table


def drop_torn_line(path: Path) -> None:
    """Cut a file after its last line that ends: a kill while it was written may have left a part of another."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
