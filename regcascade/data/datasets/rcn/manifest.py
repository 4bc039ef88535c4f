"""The preprocessed scans that RCN's authors published: HDF5 files, and the JSON that lists them.

The JSON has `files` (a key and the path of an HDF5 file), `subsets` (a name and scans, `key/group`; a scan whose key is
no file's lies in the file of the key `/`, under its whole name), `schemes` (a name, and how often each subset is drawn
from), and may have `image_size`, `image_type`, `segmentation_class_value` (label names and values) and `atlas`. What a
group holds is in `rcn_groups`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.rcn.groups import POINT, SEGMENTATION, check_group, open_h5, read_group
from regcascade.data.options import check_size
from regcascade.types import Size
from regcascade.utils.registry import did_you_mean

REST = "/"  # the key of the file for scans that no other key claims


@dataclass(frozen=True)
class Manifest:
    """What the JSON says.

    Attributes:
        path: of it.
        files: the HDF5 file of each key.
        subsets: the scans of each subset, in its order.
        schemes: the subsets of each scheme, and how often to draw from them.
        size: sides of every volume in voxels.
        classes: what each label value means; None where segmentations are of one structure.
        structure: what that one is.
        atlas: the scan that is fixed in every pair, if one is named.
    """

    path: Path
    files: dict[str, Path]
    subsets: dict[str, list[str]]
    schemes: dict[str, dict[str, float]]
    size: Size
    classes: dict[int, str] | None
    structure: str
    atlas: str | None

    @property
    def label_names(self) -> dict[int, str]:
        """What each label value of a segmentation means."""
        return {1: self.structure} if self.classes is None else self.classes

    def scheme(self, option: str, name: str | int | None) -> dict[str, float]:
        """The subsets of a scheme that are drawn from at all, with their weights; none for no scheme.

        Raises:
            ValueError: naming the option, if there is no such scheme, or nothing in it.
        """
        if name is None:
            return {}
        if str(name) not in self.schemes:
            raise ValueError(
                f"{option}={name}: {self.path} has no scheme of that name under 'schemes'. It has: "
                f"{', '.join(self.schemes)}.{did_you_mean(str(name), self.schemes)}"
            )
        chosen = {subset: weight for subset, weight in self.schemes[str(name)].items() if weight > 0}
        if not any(self.subsets[subset] for subset in chosen):
            raise ValueError(f"{option}={name}: the scheme {name!r} of {self.path} has no scan to draw.")
        return chosen

    def place(self, scan: str) -> tuple[Path, str]:
        """The HDF5 file of a scan, and its group there."""
        key, _, group = scan.partition("/")
        if key in self.files:
            return self.files[key], group
        if REST in self.files:
            return self.files[REST], scan
        hint = did_you_mean(key, self.files)
        raise ValueError(f"{self.path}: the scan {scan!r} is of no file. 'files' has: {', '.join(self.files)}.{hint}")


def is_manifest(path: Path) -> bool:
    """Whether a file looks like the authors' JSON, rather than another table of scans."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else None
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and bool({"files", "subsets", "schemes"} & set(content))


def read_manifest(path: Path) -> Manifest:
    """Read the JSON.

    A path in it is taken from the folder of the JSON, or from the one above, as the authors' are.

    Raises:
        ValueError: naming the file and key, if it is not there or not as it should be.
    """
    if not path.is_file():
        raise ValueError(f"data.root={path}: there is no such file. Give the authors' JSON: data.root=liver.json.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Fetch it again or mend it.") from error
    try:
        files = {key: _found(path, str(file["path"])) for key, file in _part(content, "files", path).items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: 'files' must map keys to files: {{'lits': {{'path': 'lits.h5'}}}}.") from error
    subsets, schemes = _part(content, "subsets", path), _part(content, "schemes", path)
    for name, scans in subsets.items():
        if not isinstance(scans, list) or not all(isinstance(scan, str) for scan in scans):
            raise ValueError(f"{path}: the subset {name!r} under 'subsets' must be a list of scans.")
        repeated = next((scan for scan, count in Counter(scans).items() if count > 1), None)
        if repeated:
            raise ValueError(f"{path}: the subset {name!r} lists {repeated!r} more than once.")
    for name, scheme in schemes.items():
        _check_scheme(name, scheme, subsets, path)
    return Manifest(
        path=path,
        files=files,
        subsets=subsets,
        schemes={name: {key: float(weight) for key, weight in scheme.items()} for name, scheme in schemes.items()},
        size=check_size(f"{path}: image_size", content.get("image_size", [128, 128, 128])),
        classes=_classes(content, path),
        structure=str(content.get("image_type", "label_1")),
        atlas=content.get("atlas"),
    )


class H5Cases(CaseSet):
    """Scans of the authors' HDF5 files. Shapes are checked at once, voxels read when a case is asked for.

    Args:
        manifest: what the JSON says.
        names: the scans, as it names them.
        spacing: mm per voxel along each axis; the files do not say.

    Raises:
        ValueError: naming the file and group, if one is missing, damaged or of another shape.
    """

    def __init__(
        self, manifest: Manifest, names: Sequence[str], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> None:
        self.manifest = manifest
        self.names = list(names)
        self.spacing = spacing
        self._places = [manifest.place(name) for name in self.names]
        self._has = self._checked()
        labelled = any(SEGMENTATION in has for has in self._has)
        self.label_names = manifest.label_names if labelled else {}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The size; the files do not say how the authors made them."""
        return {"size": list(self.manifest.size), "recipe": None}

    def set_of(self, index: int) -> str:
        """The first subset that lists a case."""
        return next((name for name, scans in self.manifest.subsets.items() if self.names[index] in scans), "")

    def __getitem__(self, index: int) -> Case:
        """Read a case.

        Raises:
            ValueError: naming the file and group, if its content is damaged or no number in range.
        """
        (path, group), has = self._places[index], self._has[index]
        # Opened anew each time: an open file does not survive being carried over to a worker process.
        with open_h5(path) as file:
            scan = read_group(file, path, group, has, self.manifest.classes)
        return Case(
            name=self.names[index],
            image=scan.volume / 255,
            spacing=self.spacing,
            labels=scan.labels,
            points=scan.points,
        )

    def labelled(self, index: int) -> bool:
        """Whether a scan has a segmentation."""
        return SEGMENTATION in self._has[index]

    def landmarked(self, index: int) -> bool:
        """Whether a scan has points."""
        return POINT in self._has[index]

    def _checked(self) -> list[set[str]]:
        """What each scan's group has, its shapes checked; each file is opened once."""
        found: dict[tuple[Path, str], set[str]] = {}
        for path in dict.fromkeys(path for path, _ in self._places):
            with open_h5(path) as file:
                for place in self._places:
                    if place[0] == path:
                        found[place] = check_group(file, *place, self.manifest.size, self.manifest.path)
        return [found[place] for place in self._places]


def _part(content: object, key: str, path: Path) -> dict[str, Any]:
    part = content.get(key) if isinstance(content, dict) else None
    if not isinstance(part, dict) or not part:
        raise ValueError(f"{path} has no {key!r}. Is it the authors' JSON, with 'files', 'subsets' and 'schemes'?")
    return part


def _found(path: Path, file: str) -> Path:
    """Where a file of the JSON lies: beside the JSON, or as seen from the folder above it."""
    beside, above = path.parent / file, path.parent.parent / file
    return above if above.is_file() and not beside.is_file() else beside


def _check_scheme(name: str, scheme: object, subsets: Mapping[str, object], path: Path) -> None:
    if not isinstance(scheme, dict) or not scheme:
        raise ValueError(f"{path}: the scheme {name!r} under 'schemes' must map subsets to weights.")
    for subset, weight in scheme.items():
        if subset not in subsets:
            raise ValueError(
                f"{path}: the scheme {name!r} has the subset {subset!r}, which 'subsets' does not list. It lists: "
                f"{', '.join(subsets)}.{did_you_mean(subset, subsets)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ValueError(f"{path}: the scheme {name!r} gives {subset!r} the weight {weight!r}: give 0 or more.")


def _classes(content: Mapping[str, Any], path: Path) -> dict[int, str] | None:
    named = content.get("segmentation_class_value")
    if named is None:
        return None
    try:
        return {int(value): str(name) for name, value in sorted(named.items(), key=lambda item: int(item[1]))}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: 'segmentation_class_value' must map names to label values.") from error
