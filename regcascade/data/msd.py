"""Folders laid out as the Medical Segmentation Decathlon's tasks are."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.data.dataset import CacheDataset, Dataset
from monai.transforms.transform import Transform

from regcascade.data.case import Case, CaseSet
from regcascade.data.preprocessing import Preprocessing, check_same_shape
from regcascade.data.sources import Source, check_names
from regcascade.data.volumes import read_header, scan_name

MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Scan:
    """The files of one scan."""

    name: str
    image: Path
    label: Path | None


class Decathlon(CaseSet):
    """Every scan that a folder's `dataset.json` lists, under `training` or `test`, with labels or without.

    Constructing it reads the manifest and the header of every file, so that a missing file, a 4D image or
    labels of another shape show up at once. Voxels are read when a case is first asked for, and then kept if
    `cache`.

    Args:
        root: the folder with `dataset.json`.
        preprocessing: what to do with each scan.
        cache: keep the cases in memory (6 bytes a voxel of the preprocessed size).

    Attributes:
        modality: what the manifest says of the intensities, such as `{0: "CT"}`.

    Raises:
        ValueError: naming the file, if the folder or anything it lists is not as it should be.
    """

    def __init__(self, root: str | Path, preprocessing: Preprocessing, cache: bool = True) -> None:
        self.root = Path(root)
        self.preprocessing = preprocessing
        manifest = _read_manifest(self.root)
        self.label_names = _label_names(manifest, self.root / MANIFEST)
        self.modality = _numbered_names(manifest, "modality", self.root / MANIFEST)
        self._scans = _list_scans(manifest, self.root)
        self.names = [scan.name for scan in self._scans]
        for scan in self._scans:
            _check_headers(scan)
        if not self.label_names and any(scan.label for scan in self._scans):
            raise ValueError(f"{self.root / MANIFEST} lists label files, but its 'labels' does not name their values.")
        reader = _ReadScan(preprocessing, self.label_names)
        self._cases = (
            CacheDataset(self._scans, reader, runtime_cache=True, copy_cache=False, progress=False)
            if cache
            else Dataset(self._scans, reader)
        )

    def __getitem__(self, index: int) -> Case:
        """Read a case, or take it from memory; do not write to it.

        Raises:
            ValueError: naming the file, if its content is damaged, constant or not finite, or its labels are
                not those of the manifest.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.root} has {len(self)} scans; there is no number {index}.")
        try:
            return self._cases[index % len(self)]
        except RuntimeError as error:
            # MONAI wraps what a transform raises; the message for the user is inside.
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise

    def labelled(self, index: int) -> bool:
        """Whether the manifest gives a scan labels."""
        return self._scans[index].label is not None

    def landmarked(self, index: int) -> bool:
        """No scan of a Decathlon folder has landmarks."""
        return False


def decathlon_sources(root: Path) -> tuple[list[Source], dict[int, str]]:
    """The raw scans of a Decathlon folder, and what their labels mean, for `regcascade prepare`.

    Raises:
        ValueError: naming the file, if the folder or its `dataset.json` is not as it should be.
    """
    manifest = _read_manifest(root)
    sources = [Source(scan.name, scan.image, scan.label) for scan in _list_scans(manifest, root)]
    return check_names(sources, root / MANIFEST), _label_names(manifest, root / MANIFEST)


class _ReadScan(Transform):
    """MONAI's cache keeps what a `Transform` returns, and takes any other callable for a random one."""

    def __init__(self, preprocessing: Preprocessing, label_names: dict[int, str]) -> None:
        self.preprocessing = preprocessing
        self.known = {0, *label_names}

    def __call__(self, scan: Scan) -> Case:
        case = self.preprocessing.read(scan.image, scan.label, scan.name)
        if case.labels is not None:
            values = case.labels.flatten().bincount().nonzero().flatten().tolist()
            unknown = [value for value in values if value not in self.known]
            if unknown:
                raise ValueError(f"{scan.label} has the labels {unknown}, which 'labels' in {MANIFEST} does not name.")
        return case


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


def _list_scans(manifest: dict[str, Any], root: Path) -> list[Scan]:
    scans = [_scan(entry, root) for entry in [*manifest["training"], *manifest.get("test", [])]]
    if not scans:
        raise ValueError(f"{root / MANIFEST} lists no scans.")
    repeated = [name for name, count in Counter(scan.name for scan in scans).items() if count > 1]
    if repeated:
        raise ValueError(f"{root / MANIFEST} lists more than one scan of the name {repeated[0]!r}; rename the files.")
    return sorted(scans, key=lambda scan: scan.name)


def _scan(entry: object, root: Path) -> Scan:
    if isinstance(entry, str):
        entry = {"image": entry}
    image = entry.get("image") if isinstance(entry, dict) else None
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(image, str) or not (label is None or isinstance(label, str)):
        raise ValueError(
            f"{root / MANIFEST}: a scan is {{'image': 'imagesTr/a.nii.gz', 'label': 'labelsTr/a.nii.gz'}}, "
            f"the label optional; got {entry!r}."
        )
    return Scan(scan_name(Path(image)), root / image, root / label if label else None)


def _check_headers(scan: Scan) -> None:
    image = read_header(scan.image)
    if scan.label is not None:
        check_same_shape(image, read_header(scan.label), scan.image, scan.label)


def _label_names(manifest: dict[str, Any], path: Path) -> dict[int, str]:
    names = _numbered_names(manifest, "labels", path)
    return {value: name for value, name in sorted(names.items()) if value != 0}


def _numbered_names(manifest: dict[str, Any], key: str, path: Path) -> dict[int, str]:
    names = manifest.get(key, {})
    try:
        return {int(value): str(name) for value, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path}: '{key}' must map numbers to names, such as {{'0': 'background'}}.") from error
