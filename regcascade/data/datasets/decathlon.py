"""Folders laid out as the Medical Segmentation Decathlon's tasks are."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.scans import Scans
from regcascade.data.io.images import scan_name
from regcascade.data.io.scan_lists import Source, check_names
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Part, split_names

MANIFEST = "dataset.json"


class Decathlon(Scans):
    """Every scan that a folder's `dataset.json` lists, under `training` or `test`, with labels or without.

    Args:
        root: the folder with `dataset.json`.
        preprocessing: what to do with each scan.
        cache: how to keep cases in memory, see `chosen_store`.

    Attributes:
        modality: what the manifest says of the intensities, such as `{0: "CT"}`.

    Raises:
        ValueError: naming the file, if the folder or anything it lists is not as it should be.
    """

    def __init__(self, root: str | Path, preprocessing: Preprocessing, cache: bool | str = "auto") -> None:
        path = Path(root) / MANIFEST
        manifest = _read_manifest(Path(root))
        self.modality = numbered_names(manifest, "modality", path)
        label_names = _label_names(manifest, path)
        sources = _list_scans(manifest, Path(root))
        super().__init__(sources, preprocessing, label_names, cache, named_in=f"'labels' in {MANIFEST}")
        if not label_names and any(source.labels for source in sources):
            raise ValueError(f"{path} lists label files, but its 'labels' does not name their values.")


def decathlon_sources(root: Path) -> tuple[list[Source], dict[int, str]]:
    """The raw scans of a Decathlon folder, and what their labels mean, for `regcascade prepare`.

    Raises:
        ValueError: naming the file, if the folder or its `dataset.json` is not as it should be.
    """
    manifest = _read_manifest(root)
    return check_names(_list_scans(manifest, root), root / MANIFEST), _label_names(manifest, root / MANIFEST)


def _read_manifest(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}. Give that of a Decathlon task: data.root=DIR.")
    if not path.is_file():
        raise ValueError(f"{root} has no {MANIFEST}. Give the folder of a Decathlon task that has one: data.root=DIR.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Fetch it again or mend it.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("training"), list):
        raise ValueError(f"{path} has no list 'training'. It must list the scans: [{{'image': ..., 'label': ...}}].")
    if not isinstance(manifest.get("test", []), list):
        raise ValueError(f"{path}: 'test' must be a list of image paths.")
    return manifest


def _list_scans(manifest: dict[str, Any], root: Path) -> list[Source]:
    path = root / MANIFEST
    scans = [_scan(entry, path, root) for entry in [*manifest["training"], *manifest.get("test", [])]]
    if not scans:
        raise ValueError(f"{path} lists no scans.")
    _check_apart(scans, path)
    return sorted(scans, key=lambda scan: scan.name)


def _scan(entry: object, path: Path, root: Path) -> Source:
    if isinstance(entry, str):
        entry = {"image": entry}
    image = entry.get("image") if isinstance(entry, dict) else None
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(image, str) or not (label is None or isinstance(label, str)):
        raise ValueError(
            f"{path}: a scan is {{'image': 'imagesTr/a.nii.gz', 'label': 'labelsTr/a.nii.gz'}}, "
            f"the label optional; got {entry!r}."
        )
    return Source(scan_name(Path(image)), root / image, root / label if label else None)


def _check_apart(scans: Sequence[Source], path: Path) -> None:
    repeated = [name for name, count in Counter(scan.name for scan in scans).items() if count > 1]
    if repeated:
        raise ValueError(f"{path} lists more than one scan of the name {repeated[0]!r}; rename the files.")


def _label_names(manifest: dict[str, Any], path: Path) -> dict[int, str]:
    names = numbered_names(manifest, "labels", path)
    return {value: name for value, name in sorted(names.items()) if value != 0}


def numbered_names(manifest: dict[str, Any], key: str, path: Path) -> dict[int, str]:
    """What a manifest calls each number under a key, such as `labels`; nothing where it has no such key.

    Raises:
        ValueError: naming the manifest, if that is no mapping of numbers to names.
    """
    names = manifest.get(key, {})
    try:
        return {int(value): str(name) for value, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path}: '{key}' must map numbers to names, such as {{'0': 'background'}}.") from error


@DATA_SETS.register("msd")
class DecathlonData(DataSet):
    """A folder of the Medical Segmentation Decathlon, or one laid out alike.

    Args:
        preprocessing: what makes a case of a scan.
        root: the folder with `dataset.json`.
        train: a fraction, a count, names, or a file of names; None for all that validation leaves.
        validation: the same.
        cache: how to keep cases in memory, see `chosen_store`; true is `auto`, false `none`.
        seed: of the split, as of the pairs.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        root: str | None = None,
        train: Part = None,
        validation: Part = 0.15,
        cache: bool | str = "auto",
        seed: int = 0,
    ) -> None:
        if root is None:
            raise ValueError("data=msd needs the folder of a Decathlon task, with its dataset.json: data.root=DIR.")
        self.cases = Decathlon(root, preprocessing, cache)
        self.split = split_names(self.cases.names, self.cases.labelled_names(), validation, train, seed)
