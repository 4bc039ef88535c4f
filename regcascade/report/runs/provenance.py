"""Where the numbers of a run come from: its settings, versions, commits and hashes, as its files say them."""

import json
import platform
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from regcascade.cascades.checkpoint import CheckpointError, read
from regcascade.evaluation.layout import CHECKPOINTS, CONFIG, DIFFERENCE, GIT, PAIRS, TRAINED, read_json, read_summary
from regcascade.utils.files import file_hash, git_state
from regcascade.utils.version import __version__

PACKAGES = ("torch", "lightning", "monai", "SimpleITK", "numpy", "scipy", "pandas", "matplotlib", "hydra-core")
_NOT_FACTS = ("measures", "sets", TRAINED)  # of a summary: in tables, and in the checkpoint


class Provenance(NamedTuple):
    """Where the numbers of a run come from: values by their names, and longer texts by their titles."""

    facts: dict[str, str]
    texts: dict[str, str]  # the configuration, and the description in the checkpoint


def provenance(folder: Path) -> Provenance:
    """Collect what the files of an evaluated run say, except its measures. A lost checkpoint is said to be so."""
    summary = read_summary(folder)
    facts = {"folder": str(folder)}
    facts |= {name.replace("_", " "): _in_words(value) for name, value in summary.items() if name not in _NOT_FACTS}
    try:
        code = read_json(folder / GIT, "")
    except ValueError:  # missing or damaged
        code = {}
    facts |= {f"code: {name}": _in_words(value) for name, value in code.items() if name != "commit"}
    for name in (PAIRS, DIFFERENCE):
        if (folder / name).is_file():
            facts[f"SHA-256 of {name}"] = file_hash(folder / name)
    texts = {}
    if (folder / CONFIG).is_file():
        texts[CONFIG] = (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    named = summary.get("checkpoint")
    if isinstance(named, str):
        facts["checkpoint now"], description = _checkpoint(Path(named), folder, summary.get("checkpoint_sha256"))
        if description:
            texts["what the checkpoint says of itself"] = description
    return Provenance(facts, texts)


def facts_table(names: list[str], sources: list[Provenance]) -> pd.DataFrame:
    """Put the facts of several runs beside each other, a row for each; `-` where a run does not say."""
    keys = dict.fromkeys(key for source in sources for key in source.facts)
    columns = {name: [source.facts.get(key, "-") for key in keys] for name, source in zip(names, sources, strict=True)}
    return pd.DataFrame({"": list(keys), **columns})


def software() -> dict[str, str]:
    """Collect the time, and the versions of this package and of those it uses."""
    state = git_state()
    changed = " with uncommitted changes" if state["dirty"] else ""
    return {
        "written": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        "regcascade": __version__,
        "commit": f"{state['commit'] or '-'}{changed}",
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _checkpoint(named: Path, folder: Path, digest: object) -> tuple[str, str]:
    """Whether a checkpoint is still what was evaluated, and if so its description."""
    moved = folder / CHECKPOINTS / named.name  # with the run
    path = moved if not named.is_file() and moved.is_file() else named
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


def _in_words(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
