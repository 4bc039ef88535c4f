"""Files of a run folder: their names, the columns of its tables that are no measures, and how they are read."""

import json
from pathlib import Path
from typing import Any

import yaml

CONFIG, GIT, DIFFERENCE = "config.yaml", "git.json", "git.diff"  # what ran
CHECKPOINTS, BEST, LAST = "checkpoints", "best.ckpt", "last.ckpt"
PAIRS, STAGES, SUMMARY, IDENTITY = "pairs.csv", "stages.csv", "summary.json", "evaluation.json"

KEY = ["fixed", "moving"]  # columns that tell pairs apart
SET = "set"  # a column where pairs are of several sets
FAILED = "failed"  # why a pair failed, empty where it did not
BEFORE = "_before"  # ends the measures before registration

EVALUATE = "Evaluate it (again): python evaluate.py checkpoint=FILE."
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file of names and values.

    Raises:
        ValueError: with the remedy, if it cannot be read or holds something else.
    """
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")), path, remedy)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}. {remedy}") from error


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Read a YAML file of names and values.

    Raises:
        ValueError: with the remedy, if it cannot be read or holds something else.
    """
    try:
        return _mapping(yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}, path, remedy)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}. {remedy}") from error


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the `summary.json` of an evaluation.

    Raises:
        ValueError: if it is missing, damaged or of something else.
    """
    summary = read_json(folder / SUMMARY, EVALUATE)
    if not (isinstance(summary.get("measures"), dict) and isinstance(summary.get("pairs"), int)):
        raise ValueError(f"{folder / SUMMARY} is no summary of an evaluation: it has no measures. {EVALUATE}")
    return summary


def _mapping(content: Any, path: Path, remedy: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no names and values. {remedy}")
    return content
