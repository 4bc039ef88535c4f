"""Lists of raw scans: what a table, a pair of globs, or a Decathlon folder names."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from regcascade.data.io.images import scan_name
from regcascade.data.io.raw_scan import Source

COLUMNS = ("name", "image", "labels", "mask", "points", "series", "group")


def read_table(path: Path) -> list[Source]:
    """The scans of a CSV, or of a JSON list of objects, with the columns of `Source`; only `image` is a must.

    Paths are relative to the table's folder. `label` is taken for `labels`. A scan that names no image, or shares its
    name with another, has that for its `problem`.

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
    """The scans that a glob finds below a folder, each with the files beside it whose wildcards match the same.

    With `images="*/t1.nii.gz"` and `labels="*/seg.nii.gz"` the scan of each subject is named after its folder, and its
    labels are those of the same folder. As in a shell, a wildcard stands for no name that begins with a dot; `**` is
    not supported. Labels, masks or points without an image are a scan with that for its `problem`.

    Raises:
        ValueError: if there is no such folder, or a glob finds nothing.
    """
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}.")
    found = _matches(root, images)
    beside = {
        kind: _matches(root, pattern)
        for kind, pattern in {"labels": labels, "mask": masks, "points": points}.items()
        if pattern
    }
    lonely = {
        key: (path, f"{path} has no image that matches {images!r}: {kind} without an image.")
        for kind, files in beside.items()
        for key, path in files.items()
        if key not in found
    }
    sources = [Source(_named(key, path), path, problem=problem) for key, (path, problem) in sorted(lonely.items())]
    for key, path in sorted(found.items()):
        label, mask, landmarks = (beside.get(kind, {}).get(key) for kind in ("labels", "mask", "points"))
        sources.append(Source(_named(key, path), path, label, mask, landmarks))
    return told_apart(sources, root)


def read_rows(path: Path) -> list[Mapping[str, object]]:
    """The rows of a CSV, or of a JSON list of objects.

    Raises:
        ValueError: naming the file, if it cannot be read as one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return list(csv.DictReader(text.splitlines()))
        rows = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path} must hold a list of objects, such as [{{'image': ..., 'labels': ...}}, ...]. Of a "
            "Decathlon's dataset.json give the folder."
        )
    return rows


def told_apart(sources: Sequence[Source], where: Path) -> list[Source]:
    """The scans, sorted by name, each name once: scans that share one, or have one that is no file name, become a
    single one with that for its `problem`."""
    named: dict[str, list[Source]] = {}
    for source in sources:
        named.setdefault(source.name, []).append(source)
    return [_alone(alike, where) for _, alike in sorted(named.items())]


def check_names(sources: Sequence[Source], where: Path) -> list[Source]:
    """The scans, sorted by name.

    Raises:
        ValueError: if one has a problem, two have the same name, or a name is no file name.
    """
    told = told_apart(sources, where)
    for source in told:
        if source.problem is not None:
            raise ValueError(source.problem)
    return told


def _source(row: Mapping[str, object], number: int, path: Path) -> Source:
    given = {("labels" if key == "label" else key): str(value) for key, value in row.items() if value not in (None, "")}
    unknown = sorted(set(map(str, given)) - set(COLUMNS))
    if unknown:
        raise ValueError(f"{path} has the column {unknown[0]!r}, which is not known. Known: {', '.join(COLUMNS)}.")
    if "image" not in given:
        return Source(given.get("name", f"scan {number}"), path, problem=f"{path}: scan {number} names no image.")
    files = {key: path.parent / given[key] for key in ("image", "labels", "mask", "points") if key in given}
    return Source(
        name=given.get("name") or scan_name(files["image"]),
        image=files["image"],
        labels=files.get("labels"),
        mask=files.get("mask"),
        points=files.get("points"),
        series=given.get("series"),
        group=given.get("group"),
    )


def _alone(alike: Sequence[Source], where: Path) -> Source:
    """The one scan of a name, or what is wrong with that name."""
    first = alike[0]
    if len(alike) > 1:
        files = ", ".join(str(source.image) for source in alike)
        problem = f"{where} has more than one scan of the name {first.name!r} ({files}); give each a name of its own."
        return replace(first, problem=problem)
    if not first.name or re.search(r'[/\\\0,"\n]', first.name):
        problem = f"{where}: {first.name!r} is no valid name of a scan: no slashes, commas or quotes."
        return replace(first, problem=problem)
    return first


def _matches(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """What matches a glob, by the texts its wildcards stand for."""
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


def _named(key: Iterable[str], path: Path) -> str:
    """The wildcards' texts, joined, each once (`S01` of `S01/S01.hdr`); the file's own name where there are none."""
    return "_".join(text for text in dict.fromkeys(key) if text) or scan_name(path)
