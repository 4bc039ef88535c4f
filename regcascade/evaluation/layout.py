"""Files of a run folder: their names, the columns of its tables that are not measures, and readers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regcascade.utils import files

CONFIG, GIT, DIFFERENCE = "config.yaml", "git.json", "git.diff"  # what ran
CHECKPOINTS, BEST, LAST = "checkpoints", "best.ckpt", "last.ckpt"
PAIRS, STAGES, SUMMARY, IDENTITY = "pairs.csv", "stages.csv", "summary.json", "evaluation.json"

KEY = ["fixed", "moving"]  # columns that identify a pair
TRAINED = "trained"  # entry of a summary: what the checkpoint says of the model and its training
SET = "set"  # column of the data set, where several are mixed
FAILED = "failed"  # column of why a pair failed, else empty
BEFORE = "_before"  # suffix of the measures before registration

EVALUATE = "Evaluate it (again): python evaluate.py checkpoint=FILE."


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file of names and values; raise ValueError with the remedy if that fails."""
    return _read(path, "JSON", json.loads, remedy)


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Read a YAML file of names and values; raise ValueError with the remedy if that fails."""
    return _read(path, "YAML", lambda text: files.parse_yaml(text) or {}, remedy)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the `summary.json` of an evaluation; raise ValueError if it is missing, damaged or something else."""
    summary = read_json(folder / SUMMARY, EVALUATE)
    if not (isinstance(summary.get("measures"), dict) and isinstance(summary.get("pairs"), int)):
        raise ValueError(f"{folder / SUMMARY} is not the summary of an evaluation: it has no measures. {EVALUATE}")
    return summary


def _read(path: Path, kind: str, parse: Callable[[str], Any], remedy: str) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())}. {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold names and values. {remedy}")
    return content
