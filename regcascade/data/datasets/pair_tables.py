"""Tables of pairs of files; scans need no layout of folders."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.images import scan_name
from regcascade.data.io.scan_lists import Source, check_names, read_rows
from regcascade.data.pairs import NamePair
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Split
from regcascade.utils.registry import did_you_mean

ROLES = ("fixed", "moving")
BESIDE = ("labels", "points", "mask")
COLUMNS = (*ROLES, *(f"{role}_{kind}" for kind in BESIDE for role in ROLES))


@DATA_SETS.register("pairs")
class PairsData(DataSet):
    """Pairs of files that tables list.

    A table is a CSV, or a JSON list of objects, with the columns `fixed` and `moving`, and where there are any
    `fixed_labels`, `moving_labels`, `fixed_points`, `moving_points`, `fixed_mask`, `moving_mask`; paths are relative to
    it. A file that is in several pairs is one scan, named after the file. Images are 0 outside masks.

    Args, beside those that `DataSet` describes:
        train: the table of the pairs to train on; None where nothing is trained.
        validation: that of the pairs to validate and test on.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {"validation_pairs": None}

    def __init__(
        self,
        preprocessing: Preprocessing,
        train: str | None = None,
        validation: str | None = None,
        label_names: Mapping[int | str, str] | None = None,
        cache: bool | str = "auto",
    ) -> None:
        if validation is None:
            raise ValueError(
                "data=pairs needs a table of the pairs to validate on, with the columns fixed and moving: "
                "data.validation=pairs.csv. To train, data.train=pairs.csv names another."
            )
        names = check_label_names(label_names)
        sources, (validated, *others) = read_pair_tables([Path(file) for file in (validation, train) if file])
        trained = others[0] if others else []
        self.cases = Scans(sources, preprocessing, names, cache, masked=True)
        self.cases.check_landmarks([*validated, *trained])
        train_names = sorted({name for pair in trained for name in pair})
        self.split = Split(train_names, [], pairs=validated, train_pairs=trained or None)


def read_pair_tables(paths: Sequence[Path]) -> tuple[list[Source], list[list[NamePair]]]:
    """List the scans of tables, each once, and the pairs of each table by their names.

    A scan is named after its file, with as many of the folders above as it takes to tell all scans apart.

    Raises:
        ValueError: naming the table and pair, if it cannot be read, has an unknown column, lacks an image, pairs a scan
            with itself, lists a pair twice, or gives a scan other labels, landmarks or another mask than before.
    """
    scans: dict[Path, dict[str, Path]] = {}
    tables = [_read(path, scans) for path in paths]
    for depth in range(1, max(len(image.parts) for image in scans) + 1):
        names = {image: "_".join((*image.parent.parts, scan_name(image))[-depth:]) for image in scans}
        if len(set(names.values())) == len(names):
            break
    listed = [
        Source(names[image], image, beside.get("labels"), beside.get("mask"), beside.get("points"))
        for image, beside in scans.items()
    ]
    sources = check_names(listed, paths[0])
    return sources, [[(names[fixed], names[moving]) for fixed, moving in table] for table in tables]


def _read(path: Path, scans: dict[Path, dict[str, Path]]) -> list[tuple[Path, Path]]:
    """Read the pairs of a table, and add the files beside each image to `scans`."""
    pairs: dict[tuple[Path, Path], int] = {}
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}, pair {number}"
        for column in map(str, row):
            if column not in COLUMNS:
                hint = did_you_mean(column, COLUMNS)
                raise ValueError(
                    f"{path} has the column {column!r}, which is not known. Known: {', '.join(COLUMNS)}.{hint}"
                )
        given = {key: Path(os.path.normpath(path.parent / str(value))) for key, value in row.items() if value}
        for role in ROLES:
            if role not in given:
                raise ValueError(f"{where} names no {role} image.")
            image = given[role]
            noted = scans.setdefault(image, {})
            for kind in BESIDE:
                file = given.get(f"{role}_{kind}")
                if file is not None and noted.setdefault(kind, file) != file:
                    raise ValueError(f"{where}: {image} has {file} for {kind} here, and {noted[kind]} in another pair.")
        fixed, moving = given["fixed"], given["moving"]
        if fixed == moving:
            raise ValueError(f"{where}: {fixed} is paired with itself.")
        if (fixed, moving) in pairs:
            raise ValueError(f"{where} repeats pair {pairs[fixed, moving]}.")
        pairs[fixed, moving] = number
    if not pairs:
        raise ValueError(f"{path} lists no pairs.")
    return list(pairs)
