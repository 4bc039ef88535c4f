"""Find runs that may reproduce a row of a paper's table: trainings, by their config, and evaluations.

An evaluation belongs to the training whose checkpoint it is of, by the checkpoint's hash.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from regcascade.evaluation.layout import (
    CHECKPOINTS,
    CONFIG,
    IDENTITY,
    LAST,
    SUMMARY,
    read_json,
    read_summary,
    read_yaml,
)
from regcascade.report.paper.experiments import COST, Row
from regcascade.utils.files import file_hash

PAPER_SCALE = "paper"
_REMEDY = "Remove it, or leave its folder out."


class Cell(NamedTuple):
    """What was measured of one set: mean and standard deviation over pairs, and how many they are."""

    mean: float
    std: float | None
    pairs: int


Cells = dict[tuple[str, str], Cell]  # by set and measure


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: its folder, `summary.json`, its config, and the options of its data set."""

    folder: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def is_of_last(self) -> bool:
        """Whether it is of a training's last weights, not of those that were best in validation."""
        return Path(str(self.summary.get("checkpoint"))).name == LAST

    def has_r(self, r: int) -> bool:
        """Whether each network was applied r times in place."""
        return self.summary.get("r") == r and (r == 1 or self.summary.get("repeat") == "stage")

    @property
    def atlas(self) -> tuple[bool, str | None]:
        """Whether pairs are with an atlas, and which; None for the first scan."""
        return self.data.get("pairing") == "atlas", self.data.get("atlas")

    def cells(self, row: Row) -> Cells:
        """Mean, standard deviation and number of pairs by set and measure, sets called as the row's table does."""
        whole = {str(self.data.get("name")): {"pairs": self.summary.get("pairs"), "measures": self.summary["measures"]}}
        cells: Cells = {}
        for name, part in (self.summary.get("sets") or whole).items():
            for measure, values in part["measures"].items():
                if values.get("mean") is not None:
                    called = (row.sets or {}).get(name, name)
                    cells[called, measure] = Cell(values["mean"], values.get("std"), int(part["pairs"]))
        pairs, device = int(self.summary["pairs"]), self.summary.get("device", "cpu")
        if seconds := (self.summary["measures"].get("seconds") or {}).get("mean"):
            cells[COST, "seconds_cpu" if device == "cpu" else "seconds_gpu"] = Cell(seconds, None, pairs)
        if size := self.summary.get("paper_size_mib"):
            cells[COST, "paper_size_mib"] = Cell(size, None, pairs)
        return cells


@dataclass(frozen=True)
class Training:
    """A training run of an experiment: its folder, its config, and its own evaluation if it has ended."""

    folder: Path
    config: Mapping[str, Any]
    own: list[Evaluation] = field(default_factory=list)

    @property
    def experiment(self) -> str:
        """Which one it says it is."""
        return str(self.config["reproduces"]["experiment"])

    @property
    def scale(self) -> str:
        """`paper`, or what it was made smaller by."""
        return str(self.config["reproduces"].get("scale") or PAPER_SCALE)

    @cached_property
    def hashes(self) -> set[str]:
        """Of its checkpoints."""
        return {file_hash(path) for path in sorted(self.folder.glob(f"{CHECKPOINTS}/*.ckpt"))}

    @property
    def steps(self) -> int | None:
        """The last training step in `metrics.csv`, None where there is none."""
        try:
            return int(pd.read_csv(self.folder / "metrics.csv", usecols=["step"])["step"].max()) + 1
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Found:
    """The trainings of experiments, and the evaluations, below some folders."""

    trainings: list[Training]
    evaluations: list[Evaluation]


def find(paths: Sequence[Path]) -> Found:
    """Look through folders for trainings of experiments and for evaluations.

    Raises:
        ValueError: if a path is no folder, or naming a file that is damaged.
    """
    found = Found([], [])
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"--runs {path}: there is no such folder.")
    files = {file.resolve() for path in paths for file in path.rglob(CONFIG)}
    for file in sorted(files):
        if file.parent.name == ".hydra":
            continue
        config = read_yaml(file, _REMEDY)
        evaluation = list(_evaluation(file.parent, config))
        if "trainer" not in config:
            found.evaluations.extend(evaluation)
        elif (config.get("reproduces") or {}).get("experiment"):
            found.trainings.append(Training(file.parent, config, evaluation))
    return found


def _evaluation(folder: Path, config: Mapping[str, Any]) -> Iterator[Evaluation]:
    """The evaluation in a folder, if there is one that has ended."""
    if not (folder / SUMMARY).is_file():
        return
    identity = read_json(folder / IDENTITY, _REMEDY) if (folder / IDENTITY).is_file() else {}
    yield Evaluation(folder, read_summary(folder), config, identity.get("data") or config.get("data") or {})
