"""Find runs that may reproduce a row of a paper's table: trainings, by their config, and evaluations.

An evaluation belongs to the training whose checkpoint it is of, by the checkpoint's hash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

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

    def cells(self, row: Row) -> Cells:
        """Collect what was measured by set and measure, sets called as in the row's table."""
        pairs, measured = int(self.summary["pairs"]), self.summary["measures"]
        whole = {str(self.data.get("name")): {"pairs": pairs, "measures": measured}}
        cells: Cells = {}
        for name, part in (self.summary.get("sets") or whole).items():
            for measure, values in part["measures"].items():
                if values.get("mean") is not None:
                    called = (row.sets or {}).get(name, name)
                    cells[called, measure] = Cell(values["mean"], values.get("std"), int(part["pairs"]))
        if seconds := (measured.get("seconds") or {}).get("mean"):
            on_cpu = self.summary.get("device", "cpu") == "cpu"
            cells[COST, "seconds_cpu" if on_cpu else "seconds_gpu"] = Cell(seconds, None, pairs)
        if size := self.summary.get("paper_size_mib"):
            cells[COST, "paper_size_mib"] = Cell(size, None, pairs)
        return cells


@dataclass(frozen=True)
class Training:
    """A training run of an experiment: its folder, its config, and its own evaluation if it has ended."""

    folder: Path
    config: Mapping[str, Any]
    own: list[Evaluation]

    @property
    def experiment(self) -> str:
        """The experiment that its config names."""
        return str(self.config["reproduces"]["experiment"])

    @cached_property
    def hashes(self) -> set[str]:
        """The SHA-256 of each of its checkpoints."""
        return {file_hash(path) for path in sorted(self.folder.glob(f"{CHECKPOINTS}/*.ckpt"))}


class Found(NamedTuple):
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
        folder = file.parent
        if folder.name == ".hydra":
            continue
        config, evaluations = read_yaml(file, _REMEDY), []
        if (folder / SUMMARY).is_file():
            identity = read_json(folder / IDENTITY, _REMEDY) if (folder / IDENTITY).is_file() else {}
            data = identity.get("data") or config.get("data") or {}
            evaluations.append(Evaluation(folder, read_summary(folder), config, data))
        if "trainer" not in config:
            found.evaluations.extend(evaluations)
        elif (config.get("reproduces") or {}).get("experiment"):
            found.trainings.append(Training(folder, config, evaluations))
    return found
