"""Folders laid out as the tasks of the Learn2Reg challenge are.

A task's JSON lists scans under `training` and `test`, each with `image` and, as the task has them, `label`, `mask`,
`keypoints` or `landmarks`; in a task of several modalities either list may be split by modality. Pairs, of `fixed` and
`moving` images, are under `registration_val`, `registration_test` and `training_paired_images`. A file's name ends with
its subject and its modality, `LungCT_0001_0000.nii.gz`.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcascade.data.datasets.decathlon import numbered_names
from regcascade.data.io.images import scan_name
from regcascade.data.io.scan_lists import Source, check_names
from regcascade.data.pairs import NamePair
from regcascade.utils.registry import did_you_mean

AUTO, NONE = "auto", "none"
POINTS = ("keypoints", "landmarks")  # where `auto` looks for landmarks, the first that any scan has
TRAIN_PAIRS = "training_paired_images"
PAIRED_NAME = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Task:
    """What a Learn2Reg JSON says.

    Attributes:
        path: of the JSON.
        sources: every scan it lists, by name.
        train: the names of the scans under `training`, sorted.
        pairs: the lists of pairs as they stand there, by key.
        paired: whether the scans of a subject belong together, to be registered to each other.
        direction: the modality (fixed, moving) of such pairs, as in the names of files.
        label_names: what each label value means, background left out; None where the task does not say.
    """

    path: Path
    sources: dict[str, Source]
    train: list[str]
    pairs: dict[str, list[Any]]
    paired: bool
    direction: tuple[int, int]
    label_names: dict[int, str] | None

    def listed(self, key: str) -> list[NamePair]:
        """The pairs under a key, as names (fixed, moving).

        Raises:
            ValueError: naming the lists there are, if there is none; or the pair, if it is not as it should be.
        """
        if key not in self.pairs:
            raise ValueError(
                f"data.validation={key}: {self.path} lists no pairs under that key. It has: "
                f"{', '.join(self.pairs) or 'none'}.{did_you_mean(key, self.pairs)} Or list pairs by name: "
                "data.pairs=pairs.csv."
            )
        names = {source.image: source.name for source in self.sources.values()}
        return _name_pairs(key, self.pairs[key], names, self.path)

    def training(self, validated: Sequence[NamePair], training: str) -> tuple[list[str], list[NamePair] | None]:
        """The names of the scans that train, and the pairs they are drawn in, None for any two.

        A scan of a validation pair does not train, though tasks list some in both places.
        """
        held_out = {name for pair in validated for name in pair}
        if training == "random" or (training == "auto" and not self.paired):
            return [name for name in self.train if name not in held_out], None
        listed = self.listed(TRAIN_PAIRS) if TRAIN_PAIRS in self.pairs else self._pairs_by_subject()
        pairs = [pair for pair in listed if not held_out & set(pair)]
        return sorted({name for pair in pairs for name in pair}), pairs

    def _pairs_by_subject(self) -> list[NamePair]:
        """The pairs of one subject, in the task's direction, by the names of the scans."""
        subjects: dict[str, dict[int, str]] = {}
        for name in self.train:
            match = PAIRED_NAME.fullmatch(name)
            if match:
                subjects.setdefault(match[1], {})[int(match[2])] = name
        fixed, moving = self.direction
        pairs = [(scans[fixed], scans[moving]) for scans in subjects.values() if {fixed, moving} <= set(scans)]
        if not pairs:
            raise ValueError(
                f"{self.path} has no list {TRAIN_PAIRS!r}, and no two scans of 'training' are named as the modalities "
                f"{fixed:04} and {moving:04} of one subject: choose data.training=random."
            )
        return pairs


def read_task(root: Path, labels: str = "label", points: str = AUTO) -> Task:
    """Read the JSON of a Learn2Reg task.

    Args:
        root: its folder, or the file.
        labels: the key of each scan's label map.
        points: the key of each scan's landmarks, `auto` or `none`.

    Raises:
        ValueError: naming the file and entry, if it is not there, no such JSON, or names a key that no scan has.
    """
    path = _find(root)
    manifest = _read(path)
    training, test = (list(_entries(manifest, key, path)) for key in ("training", "test"))
    if not training and not test:
        raise ValueError(f"{path} lists no scans: its 'training' and 'test' are empty.")
    keys = {key for entry in (*training, *test) for key in entry}
    key = _points_key(points, keys, path)
    if labels != "label" and labels not in keys:
        raise ValueError(f"data.labels={labels}: no scan of {path} has that key.{did_you_mean(labels, keys)}")
    # A scan may be listed under both; what lies beside it is told under training.
    listed = {source.image: source for source in (_source(entry, labels, key, path) for entry in (*test, *training))}
    scans = check_names(list(listed.values()), path)
    names = {source.image: source.name for source in scans}
    return Task(
        path=path,
        sources={source.name: source for source in scans},
        train=sorted(names[_file(entry["image"], path)] for entry in training),
        pairs={name: listed for name, listed in manifest.items() if _lists_pairs(listed)},
        paired=manifest.get("pairings") == "paired",
        direction=_direction(manifest, path),
        label_names=_label_names(manifest, path) if labels == "label" else None,
    )


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}. Give that of a Learn2Reg task: data.root=DIR.")
    found = sorted(root.glob("*_dataset.json")) or sorted(root.glob("dataset.json"))
    if len(found) != 1:
        told = f"has {len(found)}: {', '.join(path.name for path in found)}" if found else "has none"
        raise ValueError(f"{root} should have one <task>_dataset.json, and {told}. Name it: data.root=FILE.")
    return found[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Fetch it again or mend it.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("training"), list | dict):
        raise ValueError(f"{path} has no list 'training'. Is it the JSON of a Learn2Reg task?")
    return manifest


def _entries(manifest: Mapping[str, Any], key: str, path: Path) -> Iterator[dict[str, str]]:
    """The scans under a key, of all modalities."""
    listed = manifest.get(key, [])
    parts = list(listed.values()) if isinstance(listed, dict) else [listed]
    for part in parts:
        for entry in part if isinstance(part, list) else [part]:
            scan = {"image": entry} if isinstance(entry, str) else entry
            if not isinstance(scan, dict) or not all(isinstance(value, str) for value in scan.values()):
                raise ValueError(f"{path}: {key!r} must list scans, {{'image': FILE, ...}}, and has {entry!r}.")
            if "image" not in scan:
                raise ValueError(f"{path}: a scan under {key!r} has no 'image', but {entry!r}.")
            yield scan


def _direction(manifest: Mapping[str, Any], path: Path) -> tuple[int, int]:
    direction = manifest.get("registration_direction") or {"fixed": 0, "moving": 1}
    try:
        return int(direction["fixed"]), int(direction["moving"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: 'registration_direction' must be like {{'fixed': 0, 'moving': 1}}.") from error


def _points_key(points: str, keys: set[str], path: Path) -> str | None:
    if points == NONE:
        return None
    if points == AUTO:
        return next((key for key in POINTS if key in keys), None)
    if points not in keys:
        known = sorted(keys - {"image"})
        raise ValueError(
            f"data.points={points}: no scan of {path} has that key. Known: {', '.join([AUTO, NONE, *known])}."
            f"{did_you_mean(points, known)}"
        )
    return points


def _source(entry: Mapping[str, str], labels: str, points: str | None, path: Path) -> Source:
    files = {key: _file(value, path) for key, value in entry.items()}
    landmarks = files.get(points or "")
    # Some tasks list landmarks with the suffix of an image.
    if landmarks is not None and not landmarks.exists() and landmarks.name.endswith(".nii.gz"):
        landmarks = landmarks.with_name(scan_name(landmarks) + ".csv")
    image = files["image"]
    return Source(scan_name(image), image, files.get(labels), files.get("mask"), landmarks)


def _file(text: str, path: Path) -> Path:
    return Path(os.path.normpath(path.parent / text))


def _lists_pairs(listed: object) -> bool:
    first = listed[0] if isinstance(listed, list) and listed else None
    return isinstance(first, dict) and bool({"fixed", "moving"} & set(first))


def _name_pairs(key: str, listed: Sequence[Any], names: Mapping[Path, str], path: Path) -> list[NamePair]:
    pairs: list[NamePair] = []
    for number, entry in enumerate(listed, start=1):
        where = f"{path}: pair {number} of {key!r}"
        pair = []
        for role in ("fixed", "moving"):
            text = entry.get(role) if isinstance(entry, dict) else None
            if not isinstance(text, str):
                raise ValueError(f"{where} names no {role} image.")
            image = _file(text, path)
            if image not in names:
                hint = did_you_mean(str(image), map(str, names))
                raise ValueError(f"{where} has {text}, which neither 'training' nor 'test' lists.{hint}")
            pair.append(names[image])
        if pair[0] == pair[1]:
            raise ValueError(f"{where} has {pair[0]!r} paired with itself.")
        pairs.append((pair[0], pair[1]))
    return list(dict.fromkeys(pairs))


def _label_names(manifest: dict[str, Any], path: Path) -> dict[int, str] | None:
    """What the labels mean; of several modalities, all together."""
    labels = manifest.get("labels") or {}
    parts = list(labels.values()) if isinstance(labels, dict) else []
    if parts and all(isinstance(part, dict) for part in parts):
        labels = {value: name for part in parts for value, name in part.items()}
    names = {value: name for value, name in sorted(numbered_names({"labels": labels}, "labels", path).items()) if value}
    return names or None
