"""Train and test on RCN's own files (Zhao 2019), with the pairs that the authors' loader makes."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.rcn.manifest import H5Cases, Manifest, read_manifest
from regcascade.data.options import check_spacing
from regcascade.data.pairs import NamePair
from regcascade.data.splits import Split
from regcascade.utils.registry import check_choice, did_you_mean

AUTO = "auto"
PAIRINGS = (AUTO, "subset", "adjacent", "atlas")


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
    """The scan that is fixed in every pair, if pairs are made with one."""
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
    """The pairs of the subsets to test on, in their order."""
    pairs: list[NamePair] = []
    for scans in (manifest.subsets[subset] for subset in subsets):
        if atlas is not None:
            pairs += [(atlas, scan) for scan in scans if scan != atlas]
        elif pairing == "adjacent":
            couples = zip(scans[::2], scans[1::2], strict=False)
            pairs += [pair for first, second in couples for pair in ((first, second), (second, first))]
        else:
            pairs += list(permutations(scans, 2))
    if not pairs:
        raise ValueError(f"{manifest.path}: no subset of data.validation has two scans to pair: {', '.join(subsets)}.")
    return list(dict.fromkeys(pairs))
