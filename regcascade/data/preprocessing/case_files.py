"""Prepared scans on disk: a memory-mappable file for each case, and a manifest of them all.

A case is a safetensors file with the arrays `image`, `(1, X, Y, Z)` in 0..1 (float32, float16, or uint8 in steps of
1/255), `labels`, `(1, X, Y, Z)` integers, and `points`, `(K, 3)` float32 in voxels of the image, NaN where missing;
labels and points only where the scan has them. Its metadata has one entry, `case`, the JSON of a `Record`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from regcascade.data.case import Case, CaseSet
from regcascade.data.io.point_tables import within
from regcascade.data.io.scan_lists import valid_name
from regcascade.data.options import check_size
from regcascade.geometry.affine import from_reference
from regcascade.geometry.grid import Geometry
from regcascade.utils.files import parse_json, write_text, written_whole
from regcascade.utils.registry import check_choice
from regcascade.utils.version import __version__

LAYOUT = 1  # of the files; readers refuse any other
AGAIN = "Delete it, and run regcascade prepare again."
MANIFEST = "manifest.json"
CASES = "cases"
STORED = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}


@dataclass(frozen=True)
class Record:
    """Plain values that describe a prepared case."""

    name: str
    size: list[int]  # sides of the prepared image in voxels
    affine: list[list[float]]  # `4 x 4`, from voxels of the prepared image to mm in RAS
    labels: list[int] | None  # the label values in it, without background; None if the scan has no label map
    points: int | None  # the number of landmarks; None if it has none
    group: str | None  # what pairs may be kept within, such as the animal
    source: dict[str, Any]  # `image`, `shape`, `affine` of the raw image; `sha256` of all files the case was made from
    recipe: dict[str, Any]  # the options of the recipe that made it, with its `name`
    store: str = "float32"  # the type of the image on disk, of `STORED`
    # `matrix`, the `4 x 4` affine map from mm of the reference to mm of this scan in RAS, and the reference's `name`
    # and `sha256`; None if no alignment was asked for.
    alignment: dict[str, Any] | None = None
    version: str = __version__  # of regcascade
    layout: int = LAYOUT  # of the file


def case_file(root: Path, name: str) -> Path:
    """Get the path of a case's file in a prepared folder."""
    return root / CASES / f"{name}.safetensors"


def write_case(path: Path, record: Record, image: Tensor, labels: Tensor | None, points: Tensor | None) -> None:
    """Write a case, whole or not at all; the arrays are as in `Case`."""
    check_choice("store", record.store, STORED)
    stored = (image * 255).round() if record.store == "uint8" else image
    arrays = {"image": stored.to(STORED[record.store]).contiguous()}
    if labels is not None:
        arrays["labels"] = labels.to(torch.uint8 if int(labels.max()) < 256 else torch.int32).contiguous()
    if points is not None:
        arrays["points"] = points.float().contiguous()
    with written_whole(path) as temporary:
        # `save_file` would hide the error of the disk in one of its own.
        temporary.write_bytes(save(arrays, metadata={"case": json.dumps(asdict(record))}))


def read_record(path: Path) -> Record:
    """Read the record of a case, without its arrays.

    Raises:
        ValueError: naming the file, if it is damaged, no prepared case, or of another layout.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _record(parse_json((file.metadata() or {})["case"]))
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no prepared case ({error}). {AGAIN}") from error


def read_case(path: Path, listed: Record | None = None) -> Case:
    """Read a prepared case, the image as float32 in 0..1.

    Raises:
        ValueError: naming the file, if it is no prepared case, holds other arrays than its record says, or nothing to
            train on, or its record is not the one that the manifest has `listed`.
    """
    record = read_record(path)
    if listed not in (None, record):
        differing = next(key for key, value in vars(record).items() if value != vars(listed)[key])
        raise ValueError(f"{path} is not the case that {MANIFEST} lists: its {differing!r} is another. {AGAIN}")
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no mapping
        _check_arrays(record, arrays["image"], arrays.get("labels"), arrays.get("points"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}. {AGAIN}") from error
    image = arrays["image"]
    image = image.float().div_(255) if image.dtype == torch.uint8 else image.float()
    labels = arrays.get("labels")
    if labels is not None:
        labels = labels.to(torch.int16 if labels.dtype == torch.uint8 else torch.int32)
    affine, aligned = np.array(record.affine, dtype=float), record.alignment
    alignment = None if aligned is None else from_reference(np.array(aligned["matrix"], dtype=float), affine)
    x, y, z = (float(step) for step in voxel_sizes(affine))
    return Case(record.name, image, (x, y, z), labels, arrays.get("points"), alignment)


def write_manifest(root: Path, records: list[Record], label_names: Mapping[int, str]) -> None:
    """Write the manifest of a prepared folder: `layout`, `version`, `label_names`, and the record of each case."""
    manifest = {
        "layout": LAYOUT,
        "version": __version__,
        "label_names": {str(value): name for value, name in label_names.items()},
        "cases": [asdict(record) for record in sorted(records, key=lambda record: record.name)],
    }
    write_text(root / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def read_manifest(root: Path) -> tuple[list[Record], dict[int, str]]:
    """Read the records and the label names of a prepared folder.

    Raises:
        ValueError: naming the folder or the file, if it is missing, damaged, or of another layout.
    """
    path = root / MANIFEST
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}. Give one that regcascade prepare has made.")
    if not path.is_file():
        raise ValueError(f"{root} has no {MANIFEST}: run regcascade prepare (again, if it was stopped) to write it.")
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        names = {int(value): str(name) for value, name in manifest["label_names"].items()}
        _check_layout(manifest)
        records = [_record(case) for case in manifest["cases"]]
        if len({record.name for record in records}) < len(records):
            raise ValueError("it lists a case twice")
        if unnamed := {value for record in records for value in record.labels or ()} - set(names):
            raise ValueError(f"it does not name the labels {sorted(unnamed)} of its cases")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}. Run regcascade prepare again; finished cases stay.") from error
    return records, names


class PreparedCases(CaseSet):
    """The cases of a folder that `regcascade prepare` made. Arrays are read when a case is asked for.

    Args:
        root: the folder.
        prefix: put before every name, to tell the cases of several sets apart.

    Raises:
        ValueError: as `read_manifest`, or naming a case without a file.
    """

    def __init__(self, root: str | Path, prefix: str = "") -> None:
        self.root = Path(root)
        self.records, self.label_names = read_manifest(self.root)
        self.names = [prefix + record.name for record in self.records]
        self._files = [case_file(self.root, record.name) for record in self.records]
        for file in self._files:
            if not file.is_file():
                raise ValueError(f"{file} is missing, though {MANIFEST} lists it: run regcascade prepare again.")

    def __getitem__(self, index: int) -> Case:
        """Read a case."""
        return replace(read_case(self._files[index], self.records[index]), name=self.names[index])

    def labelled(self, index: int) -> bool:
        """Tell whether a case has labels."""
        return self.records[index].labels is not None


def _record(values: Mapping[str, Any]) -> Record:
    """Build a record; raise ValueError for one that `prepare` does not write."""
    _check_layout(values)
    record = Record(**values)
    grid = Geometry(check_size("size", record.size), np.array(record.affine, dtype=float))
    if record.alignment is not None:
        Geometry(grid.shape, np.array(record.alignment["matrix"], dtype=float))
    right = valid_name(record.name) and record.store in STORED and isinstance(record.recipe, dict)
    right &= isinstance(record.points, int | None) and isinstance(record.group, str | None)
    right &= all(isinstance(value, int) and value > 0 for value in record.labels or ())
    if not (
        right and all(isinstance(made["sha256"], str) for made in (record.source, record.alignment or record.source))
    ):
        raise ValueError(f"the record of {record.name!r:.80} is none that prepare writes")
    return record


def _check_layout(values: Mapping[str, Any]) -> None:
    if values["layout"] != LAYOUT:
        raise ValueError(f"it has the layout {values['layout']!r:.20}, and this version reads {LAYOUT}")


def _check_arrays(record: Record, image: Tensor, labels: Tensor | None, points: Tensor | None) -> None:
    """Raise ValueError if what a file holds is not what its record says, or is nothing to train on."""
    shape, kind = torch.Size((1, *record.size)), STORED[record.store]
    if image.shape != shape or image.dtype != kind:
        raise ValueError(f"its image is {list(image.shape)} of {image.dtype}, not {list(shape)} of {kind}")
    low, high = (float(value) for value in image.aminmax())
    if not 0 <= low < high <= (255 if kind == torch.uint8 else 1):
        raise ValueError(f"its image holds values from {low:g} to {high:g}, which must differ, and be in 0..1")
    values = None
    if labels is not None:
        if labels.shape != shape or labels.is_floating_point() or labels.min() < 0:
            raise ValueError("its labels are no whole numbers from 0 up on the grid of its image")
        found = labels.flatten().bincount().nonzero().flatten() if labels.max() < 2**16 else labels.unique()
        values = [value for value in found.tolist() if value]
    if values != record.labels or (None if points is None else [*points.shape]) != (
        record.points and [record.points, 3]
    ):
        raise ValueError("its record has other labels or landmarks")
    if points is not None and not torch.equal(points.isnan(), within(points, record.size).isnan()):
        raise ValueError("it has a landmark outside its image")
