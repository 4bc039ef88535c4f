"""Lists of raw scans, from a table or from globs."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regcascade.data.io.images import scan_name
from regcascade.data.io.raw_scan import Source
from regcascade.utils.files import parse_json

COLUMNS = ("name", "image", "labels", "mask", "points", "series", "group")


def read_table(path: Path) -> list[Source]:
    """Read a list of scans from a CSV, or a JSON list of objects, with `COLUMNS`, of which only `image` is required.

    Paths are relative to the table. `label` is taken for `labels`. The `problem` of a scan tells if it names no image
    or shares its name.

    Raises:
        ValueError: naming the table, if it cannot be read, has an unknown column or lists nothing.
    """
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} lists no scans.")
    return told_apart([_source(row, number, path) for number, row in enumerate(rows, start=1)], path)


def find(
    root: Path, images: str, labels: str | None = None, masks: str | None = None, points: str | None = None
) -> list[Source]:
    """Find scans below a folder by a glob, each with the files whose wildcards match the same texts.

    With `images="*/t1.nii.gz"` and `labels="*/seg.nii.gz"`, a scan has the name and the labels of its subject's folder.
    As in a shell, a wildcard matches no hidden name; `**` is not supported. Labels, masks or points without an image
    become a scan whose `problem` says so.

    Raises:
        ValueError: if there is no such folder, or a glob finds nothing.
    """
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}.")
    found = _matches(root, images)
    given = {"labels": labels, "mask": masks, "points": points}
    beside = {kind: _matches(root, pattern) for kind, pattern in given.items() if pattern}
    lonely = {
        key: Source(_named(key, path), path, problem=f"{path} has no image by {images!r}: {kind} without an image.")
        for kind, files in beside.items()
        for key, path in files.items()
        if key not in found
    }
    sources = [source for _, source in sorted(lonely.items())]
    for key, path in sorted(found.items()):
        files: dict[str, Any] = {kind: those[key] for kind, those in beside.items() if key in those}
        sources.append(Source(_named(key, path), path, **files))
    return told_apart(sources, root)


def read_rows(path: Path) -> list[Mapping[str, object]]:
    """Read the rows of a CSV, or of a JSON list of objects.

    Raises:
        ValueError: naming the file, if it cannot be read as one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return [_cells(row, number) for number, row in enumerate(csv.DictReader(text.splitlines()), start=1)]
        rows = parse_json(text)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path} must hold a list of objects, such as [{{'image': ..., 'labels': ...}}, ...]. Of a "
            "Decathlon's dataset.json give the folder."
        )
    return rows


def _cells(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Leave out the empty cells of a row beyond the named columns, such as after a trailing comma."""
    beyond = [*row.pop(None, ()), row.pop("", None)]  # type: ignore[call-overload]  # how csv keeps surplus cells
    if any(beyond):
        raise ValueError(f"row {number} has more cells than there are names of columns")
    return row


def told_apart(sources: Sequence[Source], where: Path) -> list[Source]:
    """Sort scans by name. Scans that share a name become one with a `problem`; so does a name that is no file name."""
    named: dict[str, list[Source]] = {}
    for source in sources:
        named.setdefault(source.name, []).append(source)
    result = []
    for name, alike in sorted(named.items()):
        problem = alike[0].problem
        if len(alike) > 1:
            files = ", ".join(str(source.image) for source in alike)
            problem = f"{where} has more than one scan of the name {name!r} ({files}); give each a name of its own."
        elif not valid_name(name):
            problem = f"{where}: {name[:80]!r} is no valid name of a scan: no slashes, commas or quotes, and not long."
        result.append(replace(alike[0], problem=problem))
    return result


def valid_name(name: object) -> bool:
    """Whether this can name a scan, and its prepared case a file."""
    fitting = isinstance(name, str) and re.fullmatch(r'[^\x00-\x1f/\\,"\ud800-\udfff]+', name)
    return bool(fitting) and len(str(name).encode()) <= 200


def check_names(sources: Sequence[Source], where: Path) -> list[Source]:
    """Sort scans by name.

    Raises:
        ValueError: if one has a problem, two have the same name, or a name is no file name.
    """
    told = told_apart(sources, where)
    for problem in (source.problem for source in told if source.problem is not None):
        raise ValueError(problem)
    return told


def _source(row: Mapping[str, object], number: int, path: Path) -> Source:
    given = {("labels" if key == "label" else key): str(value) for key, value in row.items() if value not in (None, "")}
    unknown = sorted(set(map(str, given)) - set(COLUMNS))
    if unknown:
        raise ValueError(f"{path} has the column {unknown[0]!r}, which is not known. Known: {', '.join(COLUMNS)}.")
    if "image" not in given:
        return Source(given.get("name", f"scan {number}"), path, problem=f"{path}: scan {number} names no image.")
    files: dict[str, Any] = {
        key: path.parent / given[key] for key in ("image", "labels", "mask", "points") if key in given
    }
    return Source(
        given.get("name") or scan_name(files["image"]), **files, series=given.get("series"), group=given.get("group")
    )


def _matches(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """Find what matches a glob, by the texts its wildcards match."""
    if "**" in pattern:
        raise ValueError(f"The pattern {pattern!r} has '**', which is not supported: write */*.nii.gz, level by level.")
    parts = re.split(r"(\*|\?)", pattern)
    # A name that begins with a dot is hidden, such as the ._a.nii.gz that macOS packs beside a.nii.gz.
    shown = r"((?!(?<![^/])\.)[^/]{})"
    expression = "".join({"*": shown.format("*"), "?": shown.format("")}.get(part, re.escape(part)) for part in parts)
    found: dict[tuple[str, ...], Path] = {}
    for path in root.glob(re.sub(r"([\[\]])", r"[\1]", pattern)):
        match = re.fullmatch(expression, path.relative_to(root).as_posix())
        if match is not None:
            found[match.groups()] = path
    if not found:
        raise ValueError(f"{root} has nothing that matches {pattern!r}.")
    return found


def _named(key: tuple[str, ...], path: Path) -> str:
    """Join the wildcards' texts, each once (`S01` of `S01/S01.hdr`); without wildcards take the file's name."""
    return "_".join(text for text in dict.fromkeys(key) if text) or scan_name(path)
