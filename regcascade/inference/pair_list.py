"""Read pairs to register from a table, or from a folder with a folder for each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regcascade.data.datasets.pair_tables import COLUMNS
from regcascade.data.io.images import SUFFIXES, scan_name
from regcascade.data.io.scan_lists import read_rows
from regcascade.inference.outputs import REPORT
from regcascade.inference.scans import ScanFiles
from regcascade.utils.registry import did_you_mean

NAMED = ("name", *COLUMNS)


class FilePair(NamedTuple):
    """Two scans to register, and the name of their folder of results."""

    name: str
    fixed: ScanFiles
    moving: ScanFiles

    def done(self, out: Path) -> bool:
        """Tell whether the results are complete."""
        return (out / self.name / REPORT).is_file()


def read_pairs(path: Path) -> list[FilePair]:
    """Read the pairs of a table, or of a folder with a folder for each.

    A table is a CSV or JSON as for `data=pairs`, with the columns `fixed`, `moving`, optionally those in `NAMED`, and
    paths relative to it; `name` is the folder of results. In a folder, each folder holds `fixed` and `moving`, image
    files or DICOM folders, and optional files by the names of the columns (points as .csv).

    Raises:
        ValueError: naming the table or folder, if it is empty, lacks a scan, or has an unknown column or a name twice.
    """
    if path.is_dir():
        pairs = [_of_folder(each) for each in sorted(path.iterdir()) if each.is_dir()]
    else:
        pairs = [_of_row(row, number, path) for number, row in enumerate(read_rows(path), start=1)]
    if not pairs:
        raise ValueError(f"{path} lists no pairs.")
    name, times = Counter(pair.name for pair in pairs).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path} has two pairs named {name}: give each its own name (the column name).")
    return pairs


def _of_row(row: Mapping[str, object], number: int, table: Path) -> FilePair:
    unknown = [column for column in row if column not in NAMED]
    if unknown:
        raise ValueError(
            f"{table} has the column {unknown[0]}. Known: {', '.join(NAMED)}.{did_you_mean(unknown[0], NAMED)}"
        )
    paths = {column: table.parent / str(value) for column, value in row.items() if column != "name" and value}
    for role in ("fixed", "moving"):
        if role not in paths:
            raise ValueError(f"{table}, pair {number}: the column {role} is empty or missing.")
    name = str(row.get("name") or "") or f"{scan_name(paths['fixed'])}_{scan_name(paths['moving'])}"
    if Path(name).name != name or name == "..":
        raise ValueError(f"{table}, pair {number}: the name {name} must be that of one folder, without a slash.")
    return FilePair(name, *(_files(paths, role) for role in ("fixed", "moving")))


def _of_folder(folder: Path) -> FilePair:
    paths = {column: found for column in COLUMNS if (found := _named(folder, column)) is not None}
    if not {"fixed", "moving"} <= set(paths):
        raise ValueError(f"{folder} must hold a fixed and a moving scan, such as fixed.nii.gz and moving.nii.gz.")
    return FilePair(folder.name, *(_files(paths, role) for role in ("fixed", "moving")))


def _named(folder: Path, stem: str) -> Path | None:
    suffixes: Sequence[str] = (".csv",) if stem.endswith("points") else ("", *SUFFIXES)
    found = [path for suffix in suffixes if (path := folder / f"{stem}{suffix}").exists()]
    if len(found) > 1:
        raise ValueError(f"{folder} holds both {found[0].name} and {found[1].name}: leave one.")
    return found[0] if found else None


def _files(paths: Mapping[str, Path], role: str) -> ScanFiles:
    labels, points, mask = (paths.get(f"{role}_{kind}") for kind in ("labels", "points", "mask"))
    return ScanFiles(paths[role], labels, points, mask)
