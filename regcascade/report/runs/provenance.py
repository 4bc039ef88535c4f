"""What a run is and what it was made with, in words: settings, versions, commits and hashes, as its files say them."""

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from regcascade.cascades.checkpoint import CheckpointError, read
from regcascade.report.runs.find import PAIRS, SUMMARY
from regcascade.utils.files import file_hash, git_state
from regcascade.utils.version import __version__

PACKAGES = ("torch", "lightning", "monai", "SimpleITK", "numpy", "scipy", "pandas", "matplotlib", "hydra-core")
CONFIG, GIT, DIFFERENCE = "config.yaml", "git.json", "git.diff"
_ELSEWHERE = ("measures", "sets")  # of a summary: in the tables


class Provenance(NamedTuple):
    """Where the numbers of a run come from.

    Attributes:
        facts: a name and a value of each thing that its files say.
        texts: a title and the text of each longer one: its configuration, and what its checkpoint says of itself.
    """

    facts: dict[str, str]
    texts: dict[str, str]


def provenance(folder: Path) -> Provenance:
    """What the files of a run folder say, but for its measures; files that are missing or damaged say so themselves.

    Args:
        folder: of a run that `evaluated.read_run` has read.
    """
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    facts = {"folder": str(folder)}
    facts |= {name.replace("_", " "): _said(value) for name, value in summary.items() if name not in _ELSEWHERE}
    facts |= {f"code: {name}": _said(value) for name, value in _git(folder).items() if name != "commit"}
    facts[f"SHA-256 of {PAIRS}"] = file_hash(folder / PAIRS)
    if (folder / DIFFERENCE).is_file():
        facts[f"SHA-256 of {DIFFERENCE}"] = file_hash(folder / DIFFERENCE)
    texts = {}
    if (folder / CONFIG).is_file():
        texts[CONFIG] = (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    named = summary.get("checkpoint")
    if isinstance(named, str):
        facts["checkpoint now"], description = _checkpoint(_place(named, folder), summary.get("checkpoint_sha256"))
        if description:
            texts["what the checkpoint says of itself"] = description
    return Provenance(facts, texts)


def facts_table(names: list[str], sources: list[Provenance]) -> pd.DataFrame:
    """The facts of several runs beside each other, a row for each; `-` where a run does not say."""
    keys = dict.fromkeys(key for source in sources for key in source.facts)
    columns = {name: [source.facts.get(key, "-") for key in keys] for name, source in zip(names, sources, strict=True)}
    return pd.DataFrame({"": list(keys), **columns})


def software() -> dict[str, str]:
    """With what, and when, this is written."""
    state = git_state()
    changed = " with uncommitted changes" if state["dirty"] else ""
    found = {
        "written": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        "regcascade": __version__,
        "commit": f"{state['commit'] or '-'}{changed}",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    return found


def _place(named: str, folder: Path) -> Path:
    """Where a checkpoint is: where it was, or in the run folder in case that was moved."""
    moved = folder / "checkpoints" / Path(named).name
    return moved if not Path(named).is_file() and moved.is_file() else Path(named)


def _checkpoint(path: Path, digest: object) -> tuple[str, str]:
    """Whether a checkpoint is still what was evaluated, and if so what it says of itself."""
    if not path.is_file():
        return "not there", ""
    if isinstance(digest, str) and file_hash(path) != digest:
        return "another file, as its hash differs", ""
    try:
        description = read(path).description
    except CheckpointError as error:
        return str(error), ""
    said = yaml.safe_dump(dict(description), sort_keys=False, allow_unicode=True)
    return "the same file" if isinstance(digest, str) else "there, but no hash was noted", said


def _git(folder: Path) -> Mapping[str, Any]:
    try:
        state = json.loads((folder / GIT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _said(value: object) -> str:
    """A value of a JSON file in words."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
