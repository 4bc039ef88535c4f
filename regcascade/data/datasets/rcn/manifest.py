"""The JSON that lists the scans of RCN's HDF5 files.

It has `files` (a key and the path of an HDF5 file), `subsets` (a name and scans, `key/group`; a scan whose key is no
file's lies in the file of the key `/`, under its whole name), `schemes` (a name, and how often each subset is drawn
from), and may have `image_size`, `image_type`, `segmentation_class_value` (label names and values) and `atlas`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcascade.data.datasets.json_lists import read_json
from regcascade.data.datasets.rcn.groups import Group
from regcascade.data.options import check_size
from regcascade.types import Size
from regcascade.utils.registry import did_you_mean

REST = "/"  # the key of the file for scans that no other key claims
PARTS = ("files", "subsets", "schemes")


@dataclass(frozen=True)
class Manifest:
    """What the JSON says.

    Attributes:
        path: of it.
        files: the HDF5 file of each key.
        subsets: the scans of each subset, in its order.
        schemes: the subsets of each scheme, and how often to draw from them.
        size: sides of every volume in voxels.
        classes: the label values that are named; None where segmentations are of one structure, 1.
        label_names: what each label value means.
        atlas: the scan that is fixed in every pair, if one is named.
    """

    path: Path
    files: dict[str, Path]
    subsets: dict[str, list[str]]
    schemes: dict[str, dict[str, float]]
    size: Size
    classes: tuple[int, ...] | None
    label_names: dict[int, str]
    atlas: str | None

    def scheme(self, option: str, name: str | int | None) -> dict[str, float]:
        """Find the subsets of a scheme that are drawn from at all, with their weights; none for no scheme.

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

    def group(self, scan: str) -> Group:
        """Find the group of a scan; raise ValueError if no file has it."""
        key, _, name = scan.partition("/")
        if key not in self.files:
            key, name = REST, scan
        if key not in self.files:
            hint = did_you_mean(scan.partition("/")[0], self.files)
            raise ValueError(
                f"{self.path}: the scan {scan!r} is of no file. 'files' has: {', '.join(self.files)}.{hint}"
            )
        return Group(self.files[key], name, self.size, self.classes, self.path)


def is_manifest(path: Path) -> bool:
    """Whether a file looks like the authors' JSON, rather than another table of scans."""
    try:
        return path.suffix == ".json" and not read_json(path).keys().isdisjoint(PARTS)
    except ValueError:
        return False


def read_manifest(path: Path) -> Manifest:
    """Read the JSON.

    A path in it is taken from the folder of the JSON, or from the one above, as the authors' are.

    Raises:
        ValueError: naming the file and key, if it is not there or not as it should be.
    """
    content = read_json(path)
    for part in PARTS:
        if not isinstance(content.get(part), dict) or not content[part]:
            raise ValueError(f"{path} has no {part!r}. Is it the authors' JSON, with 'files', 'subsets' and 'schemes'?")
    files = {}
    for key, file in content["files"].items():
        try:
            beside, above = path.parent / str(file["path"]), path.parent.parent / str(file["path"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: 'files' must map keys to files: {{'lits': {{'path': 'lits.h5'}}}}.") from error
        files[key] = above if above.is_file() and not beside.is_file() else beside
    subsets, schemes = content["subsets"], content["schemes"]
    for name, scans in subsets.items():
        if not isinstance(scans, list) or not all(isinstance(scan, str) for scan in scans):
            raise ValueError(f"{path}: the subset {name!r} under 'subsets' must be a list of scans.")
        repeated = next((scan for scan, count in Counter(scans).items() if count > 1), None)
        if repeated:
            raise ValueError(f"{path}: the subset {name!r} lists {repeated!r} more than once.")
    for name, scheme in schemes.items():
        _check_scheme(name, scheme, subsets, path)
    classes = content.get("segmentation_class_value")
    if classes is None:
        label_names = {1: str(content.get("image_type", "label_1"))}
    else:
        try:
            label_names = {
                int(value): str(name) for name, value in sorted(classes.items(), key=lambda one: int(one[1]))
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: 'segmentation_class_value' must map names to label values.") from error
    atlas = content.get("atlas")
    if not isinstance(atlas, str | None):
        raise ValueError(f"{path}: 'atlas' must be the name of a scan, not {atlas!r:.80}.")
    return Manifest(
        path=path,
        files=files,
        subsets=subsets,
        schemes={name: {key: float(weight) for key, weight in scheme.items()} for name, scheme in schemes.items()},
        size=check_size(f"{path}: image_size", content.get("image_size", [128, 128, 128])),
        classes=None if classes is None else tuple(label_names),
        label_names=label_names,
        atlas=atlas,
    )


def _check_scheme(name: str, scheme: Any, subsets: Mapping[str, object], path: Path) -> None:
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
