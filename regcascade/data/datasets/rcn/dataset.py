"""Train and test on RCN's own files (Zhao 2019), with the pairs that the authors' loader makes."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.rcn.groups import POINT, SEGMENTATION
from regcascade.data.datasets.rcn.manifest import Manifest, read_manifest
from regcascade.data.options import check_spacing
from regcascade.data.pairs import NamePair
from regcascade.data.splits import Split
from regcascade.utils.registry import check_choice, did_you_mean

AUTO = "auto"
PAIRINGS = (AUTO, "subset", "adjacent", "atlas")


class H5Cases(CaseSet):
    """Scans of the authors' HDF5 files. Shapes are checked at once, voxels read when a case is asked for.

    Args:
        manifest: what the JSON says.
        names: the scans, as it names them.
        spacing: mm per voxel along each axis.

    Raises:
        ValueError: naming the file and group, if one is missing, damaged or of another shape.
    """

    def __init__(self, manifest: Manifest, names: Sequence[str], spacing: tuple[float, float, float]) -> None:
        self.manifest = manifest
        self.names = list(names)
        self.spacing = spacing
        self._groups = [manifest.group(name) for name in self.names]
        self._keys = [group.keys() for group in self._groups]
        self.label_names = manifest.label_names if any(SEGMENTATION in keys for keys in self._keys) else {}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The size; the files do not say how the authors made them."""
        return {"size": list(self.manifest.size), "recipe": None}

    def set_of(self, index: int) -> str:
        """Find the first subset that lists a case."""
        return next((name for name, scans in self.manifest.subsets.items() if self.names[index] in scans), "")

    def __getitem__(self, index: int) -> Case:
        """Read a case; raise ValueError naming the file and group, if its content is damaged or out of range."""
        volume, labels, points = self._groups[index].read()
        return Case(self.names[index], volume / 255, self.spacing, labels, points)

    def labelled(self, index: int) -> bool:
        """Whether a scan has a segmentation."""
        return SEGMENTATION in self._keys[index]

    def landmarked(self, index: int) -> bool:
        """Whether a scan has points."""
        return POINT in self._keys[index]


@DATA_SETS.register("rcn_h5")
class RcnH5Data(DataSet):
    """The HDF5 files that the authors of recursive cascaded networks published, as they are.

    Only the files of the schemes in use need to be there.

    Args:
        root: their JSON, `liver.json` or `brain.json`.
        train: the scheme that trains; None where nothing is trained.
        validation: the scheme to validate and test on.
        pairing: the pairs of validation: `subset`, all ordered pairs of a subset; `adjacent`, its first scan with its
            second, the third with the fourth, both ways, which for LSPIG is within an animal; `atlas`, the atlas as the
            fixed scan with every other, in training too; `auto`, `atlas` if the JSON names one and `subset` if not.
        atlas: another scan than the JSON's for `pairing=atlas`.
        spacing: mm per voxel along each axis, for the measures in mm; the files do not say.
        pairs: CSV file of the validation pairs, in place of those of `pairing`.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {"num_workers": 2, "validate": False}

    def __init__(
        self,
        root: str | None = None,
        train: str | int | None = "1",
        validation: str | int = "2",
        pairing: str = AUTO,
        atlas: str | None = None,
        spacing: Sequence[float | int] = (1.0, 1.0, 1.0),
        pairs: str | None = None,
    ) -> None:
        if root is None:
            raise ValueError("data=rcn_h5 needs the JSON that lists the authors' files: data.root=datasets/liver.json.")
        check_choice("data.pairing", pairing, PAIRINGS)
        manifest = read_manifest(Path(root))
        trained = manifest.scheme("data.train", train)
        tested = manifest.scheme("data.validation", validation)
        chosen = _atlas(manifest, pairing, atlas)
        train_names, test_names = (
            sorted({scan for subset in scheme for scan in manifest.subsets[subset]}) for scheme in (trained, tested)
        )
        names = sorted({*train_names, *test_names, *([chosen] if chosen else [])})
        self.cases = H5Cases(manifest, names, check_spacing("data.spacing", spacing))
        self.split = Split(
            train_names,
            test_names,
            pairs=None if pairs else _pairs(manifest, list(tested), pairing, chosen),
            pools=[(manifest.subsets[subset], weight) for subset, weight in trained.items()],
            atlas=chosen if trained else None,
        )


def _atlas(manifest: Manifest, pairing: str, atlas: str | None) -> str | None:
    """Choose the scan that is fixed in every pair, if pairs are made with one."""
    if pairing not in (AUTO, "atlas"):
        if atlas is not None:
            raise ValueError(f"data.atlas={atlas} needs data.pairing=atlas.")
        return None
    chosen = atlas or manifest.atlas
    if chosen is None and pairing == "atlas":
        raise ValueError(f"data.pairing=atlas: {manifest.path} names no 'atlas'. Name a scan: data.atlas=NAME.")
    known = [scan for scans in manifest.subsets.values() for scan in scans]
    if atlas is not None and atlas not in known:
        raise ValueError(f"data.atlas={atlas}: no subset of {manifest.path} has that scan.{did_you_mean(atlas, known)}")
    return chosen


def _pairs(manifest: Manifest, subsets: Sequence[str], pairing: str, atlas: str | None) -> list[NamePair]:
    """Pair the scans of the subsets to test on, in their order."""
    pairs: list[NamePair] = []
    for scans in (manifest.subsets[subset] for subset in subsets):
        if atlas is not None:
            pairs += [(atlas, scan) for scan in scans if scan != atlas]
        elif pairing == "adjacent":
            couples = zip(scans[::2], scans[1::2], strict=False)
            pairs += [pair for couple in couples for pair in (couple, couple[::-1])]
        else:
            pairs += permutations(scans, 2)
    if not pairs:
        raise ValueError(f"{manifest.path}: no subset of data.validation has two scans to pair: {', '.join(subsets)}.")
    return list(dict.fromkeys(pairs))
