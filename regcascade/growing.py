"""A CSV file that grows row by row, and that a later process can go on with after the first was killed."""

import csv
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from regcascade.files import written_whole


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
            _drop_torn_line(path)
        with path.open("a", newline="") as file:  # makes it where there is none
            empty = file.tell() == 0
        self._columns = [] if empty else pd.read_csv(path, nrows=0).columns.tolist()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            ValueError: if its columns are not those of the file.
        """
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not self._columns:
                self._columns = list(row)
                writer.writerow(self._columns)
            if list(row) != self._columns:
                differ = ", ".join(sorted(set(row) ^ set(self._columns))) or "their order"
                raise ValueError(f"{self.path} has other columns than this evaluation ({differ}): write elsewhere.")
            writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in row.values()])

    def keep(self, wanted: Callable[[Mapping[str, str]], bool]) -> None:
        """Drop the rows that are not wanted, each told as text by column."""
        if not self._columns:
            return
        with (
            written_whole(self.path) as temporary,
            self.path.open(newline="") as old,
            temporary.open("w", newline="") as new,
        ):
            writer = csv.DictWriter(new, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in csv.DictReader(old) if wanted(row))


def read_table(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Read a table that `GrowingTable` wrote, exactly: the columns `text` as they stand, the others as numbers."""
    if path.stat().st_size == 0:
        return pd.DataFrame(columns=list(text), dtype=str)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # so that a scan called NA keeps its name
    for column in table.columns.difference(list(text)):
        table[column] = [float(cell) if cell else math.nan for cell in table[column]]
    return table


def _drop_torn_line(path: Path) -> None:
    """Cut the file after its last line that ends."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
