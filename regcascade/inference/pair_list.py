"""Many pairs to register: a table or a folder of folders, gone through once, each into a folder of its own."""

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
    """Two scans to register, and the name of the folder their results go to."""

    name: str
    fixed: ScanFiles
    moving: ScanFiles

    def done(self, out: Path) -> bool:
        """Whether its results are there, whole."""
        return (out / self.name / REPORT).is_file()


def read_pairs(path: Path) -> list[FilePair]:
    """The pairs of a table, or of a folder with a folder for each.

    A table is a CSV or JSON as `data=pairs` has it, with the columns `fixed` and `moving`, where there are any
    `fixed_labels`, `moving_labels`, `fixed_points`, `moving_points`, `fixed_mask`, `moving_mask`, and `name`, for the
    folder of results; paths are relative to it. In a folder, each folder holds `fixed` and `moving`, with the suffix of
    a format or as folders of DICOM files, and any of the others under the names of the columns (points as .csv).

    Raises:
        ValueError: naming the table or folder, if it is empty, lacks a scan, or has an unknown column or a name twice.
    """
    pairs = _of_folder(path) if path.is_dir() else _of_table(path)
    names = [pair.name for pair in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has two pairs of the name {twice}: give each a name of its own (the column name).")
    if not pairs:
        raise ValueError(f"{path} lists no pairs.")
    return pairs


def _of_table(path: Path) -> list[FilePair]:
    return [_pair(row, number, path) for number, row in enumerate(read_rows(path), start=1)]


def _pair(row: Mapping[str, object], number: int, table: Path) -> FilePair:
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


def _of_folder(folder: Path) -> list[FilePair]:
    pairs = []
    for each in sorted(path for path in folder.iterdir() if path.is_dir()):
        paths = {column: found for column in COLUMNS if (found := _named(each, column)) is not None}
        if not {"fixed", "moving"} <= set(paths):
            raise ValueError(f"{each} must hold a fixed and a moving scan, such as fixed.nii.gz and moving.nii.gz.")
        pairs.append(FilePair(each.name, *(_files(paths, role) for role in ("fixed", "moving"))))
    return pairs


def _named(folder: Path, stem: str) -> Path | None:
    suffixes: Sequence[str] = (".csv",) if stem.endswith("points") else ("", *SUFFIXES)
    found = [path for suffix in suffixes if (path := folder / f"{stem}{suffix}").exists()]
    if len(found) > 1:
        raise ValueError(f"{folder} holds both {found[0].name} and {found[1].name}: leave one.")
    return found[0] if found else None


def _files(paths: Mapping[str, Path], role: str) -> ScanFiles:
    labels, points, mask = (paths.get(f"{role}_{kind}") for kind in ("labels", "points", "mask"))
    return ScanFiles(paths[role], labels, points, mask)
