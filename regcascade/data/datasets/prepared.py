"""Training and testing on prepared folders, with the papers' ways of pairing scans."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar

from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.pairs import NamePair
from regcascade.data.preprocessing.case_files import PreparedCases
from regcascade.data.splits import Part, Split, split_names
from regcascade.utils.registry import check_choice, did_you_mean

Folders = str | Mapping[str, str | None] | None
PAIRINGS = ("set", "group", "atlas")


class SeveralSets(CaseSet):
    """Several prepared folders as one set, each name preceded by that of its set: `sliver/001`.

    Raises:
        ValueError: if the folders' cases differ in size, or name a label value in two ways.
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.sets = {name: PreparedCases(folder, f"{name}/" if name else "") for name, folder in folders.items()}
        self._cases = [(key, index) for key, part in self.sets.items() for index in range(len(part))]
        self.records = [record for part in self.sets.values() for record in part.records]
        self.names = [name for part in self.sets.values() for name in part.names]
        names: dict[int, str] = {}
        for key, part in self.sets.items():
            for value, name in part.label_names.items():
                if names.setdefault(value, name) != name:
                    raise ValueError(
                        f"Label {value} is {names[value]!r} in one set and {name!r} in {key!r}: prepare them alike, "
                        "with --label-names."
                    )
        self.label_names = dict(sorted(names.items()))
        sizes = {tuple(record.size): name for record, name in zip(self.records, self.names, strict=True)}
        if len(sizes) > 1:
            listed = ", ".join(f"{list(size)} ({name})" for size, name in sizes.items())
            raise ValueError(f"The prepared cases differ in size: {listed}. Prepare them with one size.")
        if not self.names:
            raise ValueError("The prepared folders hold no case.")

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The size, and the recipe where all folders share one."""
        first = self.records[0]
        alike = all(record.recipe == first.recipe for record in self.records)
        return {"size": first.size, "recipe": first.recipe if alike else None}

    def __getitem__(self, index: int) -> Case:
        """Map and read a case."""
        key, position = self._cases[index]
        return self.sets[key][position]

    def labelled(self, index: int) -> bool:
        """Whether a case has labels."""
        return self.records[index].labels is not None

    def landmarked(self, index: int) -> bool:
        """Whether a case has points."""
        return self.records[index].points is not None

    def aligned(self, index: int) -> bool:
        """Whether a case has an alignment, and to the same scan as all others that have one."""
        references = {record.alignment["sha256"] for record in self.records if record.alignment is not None}
        return self.records[index].alignment is not None and len(references) == 1

    def set_of(self, index: int) -> str:
        """Find the name of its folder."""
        return self._cases[index][0]


@DATA_SETS.register("prepared")
class PreparedData(DataSet):
    """Folders that `regcascade prepare` made.

    Args, beside those that `DataSet` describes:
        root: a folder, or a mapping of set names to folders, to train on; with no `test`, to validate on too. A set
            whose folder is null is left out.
        test: sets to validate and test on, likewise; all of `root` then trains.
        weights: None draws the two scans of a training pair from all sets of `root` in one pool, as RCN trains. With
            `alike`, or how often to draw from each set, a pair is of one set.
        pairing: which pairs validate: `set`, ordered pairs within a set; `group`, within a group of it, such as an
            animal; `atlas`, the atlas as the fixed scan with every other.
        atlas: the name of the scan that is fixed in every pair, in training too; None unless `pairing=atlas`, where it
            defaults to the first scan to test on.
        train: the part of `root` that trains, where there is no `test`: a fraction, a count, names, or a file of names;
            None for all that validation leaves.
        validation: the part that validates, likewise.
        pairs: CSV file of the validation pairs, in place of those of `pairing`.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {"num_workers": 2, "validate": False}

    def __init__(
        self,
        root: Folders = None,
        test: Folders = None,
        weights: Mapping[str, float | int] | str | None = None,
        pairing: str = "set",
        atlas: str | None = None,
        train: Part = None,
        validation: Part = 0.15,
        seed: int = 0,
        pairs: str | None = None,
    ) -> None:
        check_choice("data.pairing", pairing, PAIRINGS)
        training, tested = _folders("data.root", root), _folders("data.test", test)
        if not training and not tested:
            raise ValueError("data=prepared needs a folder that regcascade prepare made: data.root=DIR.")
        self.cases = cases = SeveralSets({**training, **tested})
        if tested:
            train_names = [name for key in training if key not in tested for name in cases.sets[key].names]
            test_names = [name for key in tested for name in cases.sets[key].names]
        else:
            train_names, test_names, *_ = split_names(cases.names, cases.labelled_names(), validation, train, seed)
        chosen = _atlas(atlas, pairing, test_names, cases.names)
        pools = None if weights is None else _pools(cases, train_names, weights)
        listed = None if pairs else _pairs(cases, test_names, pairing, chosen)
        numbers = {one.points for one in cases.records if one.points} if pools is None and train_names else set()
        if len(numbers) > 1:
            raise ValueError(
                f"Scans of {sorted(numbers)} landmarks make no pairs: data.weights=alike pairs within sets."
            )
        self.split = Split(train_names, test_names, pairs=listed, pools=pools, atlas=chosen)


def _pairs(cases: SeveralSets, names: Sequence[str], pairing: str, atlas: str | None) -> list[NamePair]:
    """Pair the scans to test on."""
    if atlas is not None:
        return [(atlas, name) for name in names if name != atlas]
    parts: dict[tuple[str, str | None], list[str]] = {}
    wanted = set(names)
    for index, (name, record) in enumerate(zip(cases.names, cases.records, strict=True)):
        if name in wanted:
            parts.setdefault((cases.set_of(index), record.group if pairing == "group" else None), []).append(name)
    pairs = [pair for members in parts.values() for pair in permutations(members, 2)]
    if not pairs:
        raise ValueError(f"data.pairing={pairing} leaves no pair: no {pairing} has two scans to test on.")
    return pairs


def _atlas(atlas: str | None, pairing: str, test_names: Sequence[str], names: Sequence[str]) -> str | None:
    if pairing != "atlas":
        if atlas is not None:
            raise ValueError(f"data.atlas={atlas} needs data.pairing=atlas.")
        return None
    chosen = atlas or next(iter(test_names), None)
    if chosen not in names:
        raise ValueError(f"data.atlas={chosen}: there is no such scan.{did_you_mean(str(chosen), names)}")
    return chosen


def _pools(
    cases: SeveralSets, train_names: Sequence[str], weights: Mapping[str, float | int] | str
) -> list[tuple[list[str], float]]:
    """List the training scans of each set, with its weight."""
    train = set(train_names)
    if isinstance(weights, str):
        check_choice("data.weights", weights, ("alike",))
        weights = {}
    members: dict[str, list[str]] = {}
    for index, name in enumerate(cases.names):
        if name in train:
            members.setdefault(cases.set_of(index), []).append(name)
    unknown = sorted(set(weights) - set(members))
    if unknown:
        raise ValueError(f"data.weights names {unknown[0]!r}, which is no set that trains: {', '.join(members)}.")
    given = {key: float(weights.get(key, 1.0)) for key in members}
    if any(not 0 <= weight < float("inf") for weight in given.values()) or (given and not any(given.values())):
        raise ValueError(f"data.weights={weights} is not valid: numbers of 0 or more, one of them above 0.")
    return [(names, given[key]) for key, names in members.items() if given[key] > 0]


def _folders(option: str, given: Folders) -> dict[str, str]:
    """Map set names to folders; one folder alone is a set without a name."""
    if given is None:
        return {}
    if isinstance(given, str):
        return {"": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"{option}={given} is not valid: give a folder, or a mapping of set names to folders.")
    return {str(key): str(folder) for key, folder in given.items() if folder is not None}
