"""Append-only CSV that survives a crash and can be resumed."""

import csv
import glob
import math
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from regcascade.utils.files import writing, written_whole

_PART = ".part"


class AppendCSV:
    """CSV file to which rows are appended; each row is on the disk at once.

    Opening an existing file drops a last line that a crash cut short. The first row sets the columns. NaN becomes an
    empty cell.

    Args:
        path: file, created if missing.
        fresh: empty the file first.
        widens: add columns for new names, and leave cells of missing names empty. Otherwise all rows have the same
            columns.
    """

    def __init__(self, path: Path, fresh: bool = False, widens: bool = False) -> None:
        self.path = path
        self.widens = widens
        if path.is_file() and not fresh:
            _drop_torn_line(path)
        path.open("w" if fresh else "a", encoding="utf-8").close()
        with path.open(encoding="utf-8", newline="") as file:
            self._columns = next(csv.reader(file), [])

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            ValueError: for other columns than the file's, unless it widens.
            NotWritten: if the disk is full; earlier rows are kept.
        """
        columns = self._columns or list(row)
        if self.widens:
            columns = list(dict.fromkeys([*columns, *row]))
        elif list(row) != columns:
            differ = ", ".join(sorted(set(row) ^ set(columns))) or "their order"
            raise ValueError(f"{self.path} has other columns than this evaluation ({differ}): write elsewhere.")
        if self._columns and columns != self._columns:
            with self.path.open(encoding="utf-8", newline="") as file:  # a row longer than the header loses its end
                table = pd.DataFrame(csv.DictReader(file, restval=""), columns=self._columns, dtype=str)
            with writing(self.path), written_whole(self.path) as temporary:
                table.reindex(columns=columns).to_csv(temporary, index=False, lineterminator="\n")
            self._columns = columns
        cells = (row.get(name) for name in columns)
        before = self.path.stat().st_size if self.path.is_file() else 0
        with writing(self.path):
            try:
                with self.path.open("a", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    if not self._columns:
                        writer.writerow(columns)
                    writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells])
            except OSError:
                if self.path.is_file():
                    os.truncate(self.path, before)  # else the next row would continue a part of this one
                raise
        self._columns = columns


def part_of(path: Path, rank: int) -> Path:
    """Name the file of one process's rows of a shared table, until `gather` merges them."""
    return path.with_name(f"{path.name}.{rank}{_PART}")


def parts_of(path: Path) -> list[Path]:
    """List the files of rows that `gather` has not merged yet."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.*{_PART}"))


def gather(path: Path, place: Callable[[Mapping[str, str]], tuple[int, ...] | None]) -> None:
    """Merge the parts of a table into it, in order, and remove them.

    It can be interrupted at any time and run again. Lines that a crash cut short are dropped.

    Args:
        path: table; an empty one is made if it is missing.
        place: sort key of a row, from its cells by column. None drops the row. Of equal keys the first row stays.

    Raises:
        ValueError: if the columns of two files differ.
    """
    parts = parts_of(path)
    lines: dict[tuple[int, ...], str] = {}
    header = ""
    for file in (path, *parts):
        if not file.is_file():
            continue
        _drop_torn_line(file)
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
    """Read a table of `AppendCSV` exactly: the columns in `text` as strings, the others as numbers."""
    if path.stat().st_size == 0:
        return pd.DataFrame(columns=list(text), dtype=str)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a scan called NA keeps its name
    for column in table.columns.difference(list(text)):
        table[column] = [float(cell) if cell else math.nan for cell in table[column]]
    return table


def _drop_torn_line(path: Path) -> None:
    """Cut a file after its last complete line."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
