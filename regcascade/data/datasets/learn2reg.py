"""Tasks of the Learn2Reg challenge.

A task's JSON lists scans under `training` and `test`, each with `image` and, as the task has them, `label`, `mask`,
`keypoints` or `landmarks`; in a task of several modalities either list may be split by modality. Pairs, of `fixed` and
`moving` images, are under `registration_val`, `registration_test` and `training_paired_images`. A file's name ends with
its subject and its modality, `LungCT_0001_0000.nii.gz`.
"""

import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.json_lists import read_json, read_label_names
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.images import scan_name
from regcascade.data.io.raw_scan import Source
from regcascade.data.io.scan_lists import check_names
from regcascade.data.pairs import NamePair
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Split
from regcascade.utils.registry import check_choice, did_you_mean

AUTO, NONE, LISTED, RANDOM = "auto", "none", "listed", "random"
TRAIN_PAIRS = "training_paired_images"


@DATA_SETS.register("learn2reg")
class Learn2RegData(DataSet):
    """A task of the Learn2Reg challenge, in its folder.

    Args, beside those that `DataSet` describes:
        root: the folder with `<task>_dataset.json` or `dataset.json`, or that file.
        validation: the key of the pairs to validate on.
        training: what training draws, always without the scans of those pairs: `listed`, the pairs of
            `training_paired_images`, or where there are none those of one subject by their names; `random`, any two
            scans of `training`; `auto`, `listed` if the task's `pairings` is `paired`.
        labels: the key of each scan's label map; `mask` takes the masks for labels.
        points: the key of each scan's landmarks; `auto` takes `keypoints` or else `landmarks`, `none` leaves them out.
        masked: set images to 0 outside their masks.
        label_names: what each label value means; None takes the task's names, or names the values found.
        pairs: CSV file of scans' names, in place of the list `validation`.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {"validation_pairs": None}

    def __init__(
        self,
        preprocessing: Preprocessing,
        root: str | None = None,
        validation: str = "registration_val",
        training: str = AUTO,
        labels: str = "label",
        points: str = AUTO,
        masked: bool = False,
        label_names: Mapping[int | str, str] | None = None,
        cache: bool | str = "auto",
        pairs: str | None = None,
    ) -> None:
        if root is None:
            raise ValueError("data=learn2reg needs the folder of a Learn2Reg task, with its JSON: data.root=DIR.")
        check_choice("data.training", training, (AUTO, LISTED, RANDOM))
        task = Task(Path(root), labels, points)
        validated = [] if pairs is not None and validation not in task.pair_lists else task.pairs(validation)
        names, train_pairs = task.training(validated, training)
        # Other pairs may be of any scans; else those that nothing needs may be missing.
        used = task.sources if pairs is not None else {*names, *(name for pair in validated for name in pair)}
        self.cases = Scans(
            [task.sources[name] for name in sorted(used)],
            preprocessing,
            task.label_names if label_names is None else check_label_names(label_names),
            cache,
            masked=masked,
            named_in=f"'labels' in {task.path.name}",
        )
        self.cases.check_landmarks([*(train_pairs or ()), *validated], () if train_pairs is not None else names)
        self.split = Split(names, [], pairs=validated, train_pairs=train_pairs)


class Task:
    """What a Learn2Reg JSON says.

    Args:
        root: its folder, or the file.
        labels: the key of each scan's label map.
        points: the key of each scan's landmarks, `auto` or `none`.

    Attributes:
        path: of the JSON.
        sources: every scan it lists, by name.
        train: the names of the scans under `training`, sorted.
        pair_lists: the lists of pairs as they stand there, by key.
        direction: the modalities (fixed, moving) of a paired task, as in the names of files.
        label_names: what each label value means, background left out; None where the task does not say.

    Raises:
        ValueError: naming the file and entry, if it is not there, no such JSON, or names a key that no scan has.
    """

    def __init__(self, root: Path, labels: str, points: str) -> None:
        self.path = _find(root)
        manifest = read_json(self.path)
        if not isinstance(manifest.get("training"), list | dict):
            raise ValueError(f"{self.path} has no list 'training'. Is it the JSON of a Learn2Reg task?")
        training, test = (list(self._entries(key, manifest.get(key, []))) for key in ("training", "test"))
        if not training and not test:
            raise ValueError(f"{self.path} lists no scans: its 'training' and 'test' are empty.")
        keys = {key for entry in (*training, *test) for key in entry}
        if labels != "label" and labels not in keys:
            raise ValueError(f"data.labels={labels}: no scan of {self.path} has that key.{did_you_mean(labels, keys)}")
        if points == AUTO:
            points = next((key for key in ("keypoints", "landmarks") if key in keys), NONE)
        elif points != NONE and points not in keys:
            known = sorted(keys - {"image"})
            raise ValueError(
                f"data.points={points}: no scan of {self.path} has that key. Known: "
                f"{', '.join([AUTO, NONE, *known])}.{did_you_mean(points, known)}"
            )
        # A scan may be listed under both; what lies beside it is told under training.
        listed = {entry["image"]: self._source(entry, labels, points) for entry in (*test, *training)}
        self.sources = {source.name: source for source in check_names(list(listed.values()), self.path)}
        self.train = sorted({listed[entry["image"]].name for entry in training})
        self.pair_lists = {
            key: pairs
            for key, pairs in manifest.items()
            if isinstance(pairs, list) and pairs and isinstance(pairs[0], dict) and {"fixed", "moving"} & set(pairs[0])
        }
        self._paired = manifest.get("pairings") == "paired"
        direction = manifest.get("registration_direction") or {"fixed": 0, "moving": 1}
        try:
            self.direction = int(direction["fixed"]), int(direction["moving"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path}: 'registration_direction' must be like {{'fixed': 0, 'moving': 1}}."
            ) from error
        named = manifest.get("labels") or {}
        parts = list(named.values()) if isinstance(named, dict) else []
        if parts and all(isinstance(part, dict) for part in parts):  # of several modalities
            named = {value: name for part in parts for value, name in part.items()}
        self.label_names = read_label_names(named, self.path) or None if labels == "label" else None

    def pairs(self, key: str) -> list[NamePair]:
        """List the pairs under a key, as names (fixed, moving).

        Raises:
            ValueError: naming the lists there are, if there is none; or the pair, if it is not as it should be.
        """
        if key not in self.pair_lists:
            raise ValueError(
                f"data.validation={key}: {self.path} lists no pairs under that key. It has: "
                f"{', '.join(self.pair_lists) or 'none'}.{did_you_mean(key, self.pair_lists)} Or list pairs by name: "
                "data.pairs=pairs.csv."
            )
        names = {source.image: source.name for source in self.sources.values()}
        pairs: dict[NamePair, None] = {}
        for number, entry in enumerate(self.pair_lists[key], start=1):
            where = f"{self.path}: pair {number} of {key!r}"
            pair = []
            for role in ("fixed", "moving"):
                text = entry.get(role) if isinstance(entry, dict) else None
                if not isinstance(text, str):
                    raise ValueError(f"{where} names no {role} image.")
                image = self._file(text)
                if image not in names:
                    hint = did_you_mean(str(image), map(str, names))
                    raise ValueError(f"{where} has {text}, which neither 'training' nor 'test' lists.{hint}")
                pair.append(names[image])
            if pair[0] == pair[1]:
                raise ValueError(f"{where} has {pair[0]!r} paired with itself.")
            pairs[pair[0], pair[1]] = None
        return list(pairs)

    def training(self, validated: Sequence[NamePair], training: str) -> tuple[list[str], list[NamePair] | None]:
        """Choose the names of the scans that train, and the pairs they are drawn in, None for any two.

        A scan of a validation pair does not train, though tasks list some in both places.
        """
        held_out = {name for pair in validated for name in pair}
        if training == RANDOM or (training == AUTO and not self._paired):
            return [name for name in self.train if name not in held_out], None
        if TRAIN_PAIRS in self.pair_lists:
            listed = self.pairs(TRAIN_PAIRS)
        else:
            fixed, moving = self.direction
            couples = {name: re.sub(r"_\d{4}$", f"_{moving:04}", name) for name in self.train}
            listed = [
                (name, other)
                for name, other in couples.items()
                if name.endswith(f"_{fixed:04}") and other != name and other in couples
            ]
            if not listed:
                raise ValueError(
                    f"{self.path} has no list {TRAIN_PAIRS!r}, and no two scans of 'training' are named as the "
                    f"modalities {fixed:04} and {moving:04} of one subject: choose data.training=random."
                )
        pairs = [pair for pair in listed if not held_out & set(pair)]
        return sorted({name for pair in pairs for name in pair}), pairs

    def _entries(self, key: str, listed: Any) -> Iterator[dict[str, Path]]:
        """Read the files of each scan under a key, of all modalities."""
        for part in listed.values() if isinstance(listed, dict) else [listed]:
            for entry in part if isinstance(part, list) else [part]:
                scan = {"image": entry} if isinstance(entry, str) else entry
                if not isinstance(scan, dict) or not all(isinstance(value, str) for value in scan.values()):
                    raise ValueError(
                        f"{self.path}: {key!r} must list scans, {{'image': FILE, ...}}, and has {reprlib.repr(entry)}."
                    )
                if "image" not in scan:
                    raise ValueError(f"{self.path}: a scan under {key!r} has no 'image', but {reprlib.repr(entry)}.")
                yield {kind: self._file(value) for kind, value in scan.items()}

    def _source(self, files: Mapping[str, Path], labels: str, points: str) -> Source:
        landmarks = files.get(points)
        # Some tasks list landmarks with the suffix of an image.
        if landmarks is not None and not landmarks.exists() and landmarks.name.endswith(".nii.gz"):
            landmarks = landmarks.with_name(scan_name(landmarks) + ".csv")
        image = files["image"]
        return Source(scan_name(image), image, files.get(labels), files.get("mask"), landmarks)

    def _file(self, text: str) -> Path:
        return Path(os.path.normpath(self.path.parent / text))


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
