"""The figures of evaluated runs: charts of all their pairs, and pages of single pairs, registered again for them."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from lightning.fabric.utilities import move_data_to_device
from matplotlib.figure import Figure

from regcascade.checkpoint import Checkpoint, file_hash, read
from regcascade.data import RegistrationData, build_data
from regcascade.data.pairs import ListedPairs, NamePair, collate
from regcascade.registry import did_you_mean
from regcascade.report.charts import (
    Tables,
    against_cascades,
    against_initial,
    by_quality,
    extreme_cases,
    has_initial,
    label_boxes,
    measure_of,
    worst_and_best,
)
from regcascade.report.pictures import registration_figure

SUMMARY, CONFIG = "summary.json", "config.yaml"
BEST, LAST = Path("checkpoints/best.ckpt"), Path("checkpoints/last.ckpt")


class Setting(NamedTuple):
    """How a run registered.

    Attributes:
        n: deformable stages.
        r: how often each network was applied.
        repeat: in which order, see `Cascade.forward`.
    """

    n: int
    r: int
    repeat: str


def set_figures(tables: Tables, settings: pd.DataFrame | None = None) -> Iterator[tuple[str, Figure]]:
    """The charts that the tables of one or several methods have the numbers for, each with a name for its file.

    Args:
        tables: the methods, see `charts`.
        settings: what `against_cascades` takes; that chart is left out without, and where n and r do not vary.

    Raises:
        ValueError: if no pair has Dice or CC.
    """
    yield "labels", label_boxes(tables)
    if has_initial(tables):
        yield "initial", against_initial(tables)
    yield "cases", extreme_cases(tables)
    if settings is not None and (settings[["n", "r"]].nunique() > 1).any():
        yield "cascades", against_cascades(settings)


def settings_of(folders: Sequence[Path], tables: Tables, given: Path | None = None) -> pd.DataFrame | None:
    """The rows of `against_cascades`; runs that are no cascade's (the baselines') have none.

    Args:
        folders: of the runs.
        tables: of each run, in the same order.
        given: a checkpoint to read instead of the run's own.

    Returns:
        None if no run has Dice, n and r.
    """
    if measure_of(tables) != "dice_mean":
        return None
    rows = []
    for folder, table in zip(folders, tables.values(), strict=True):
        try:
            setting = setting_of(folder)
            model = _model_name(find_checkpoint(folder, given))
        except ValueError:
            continue
        rows.append({"model": model, "n": setting.n, "r": setting.r, "mean": table["dice_mean"].mean()})
    return pd.DataFrame(rows) if rows else None


def setting_of(folder: Path) -> Setting:
    """How a run registered, from its `summary.json`.

    Raises:
        ValueError: if the file is missing or damaged, or does not say: it is no cascade's.
    """
    summary = _summary(folder)
    n, r, repeat = (summary.get(key) for key in Setting._fields)
    if not (isinstance(n, int) and isinstance(r, int) and isinstance(repeat, str)):
        raise ValueError(
            f"{folder / SUMMARY} does not say n, r and repeat, as that of a cascade does, so its pairs cannot be "
            "registered again. Leave the pages of pairs out: --worst 0."
        )
    return Setting(n, r, repeat)


def find_checkpoint(folder: Path, given: Path | None = None) -> Path:
    """The checkpoint that a run evaluated: the one given, that of its `summary.json`, or the best in its own folder.

    The file of a summary is looked for where it was, and in the run folder in case that was moved.

    Raises:
        ValueError: if there is none, or if the file has changed since.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(f"--checkpoint {given}: there is no such file.")
        return given
    summary = _summary(folder)
    named = summary.get("checkpoint")
    places = [Path(named)] if isinstance(named, str) else []
    places += [folder / BEST, folder / LAST]
    found = [path for path in places if path.is_file()]
    if not found:
        missing = f"its checkpoint {named} is not there" if named else f"{SUMMARY} names no checkpoint"
        raise ValueError(
            f"{folder}: {missing}, and there is no {BEST} in it. Name the file with --checkpoint, or leave the pages "
            "of pairs out: --worst 0."
        )
    digest = summary.get("checkpoint_sha256")
    same = [path for path in found if digest is None or file_hash(path) == digest]
    if not same:
        raise ValueError(
            f"{found[0]} is not what {folder} evaluated, since its hash differs from that in {SUMMARY}: it was trained "
            "further, or replaced. Evaluate it again, or name it with --checkpoint to draw it nevertheless."
        )
    return same[0]


def data_of(folder: Path, checkpoint: Checkpoint) -> RegistrationData:
    """The data set a run was evaluated on: that of its `config.yaml`, or where it has none the checkpoint's own.

    Raises:
        ValueError: if the set cannot be read any more.
    """
    options: dict[str, Any] = dict(checkpoint.description["data"])
    file = folder / CONFIG
    if file.is_file():
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read as YAML: {str(error).splitlines()[0]}.") from error
        chosen = config.get("data") if isinstance(config, dict) else None
        if isinstance(chosen, dict) and chosen.get("name") == "trained":
            options |= {key: value for key, value in chosen.items() if key != "name" and value != "as_trained"}
        elif isinstance(chosen, dict):
            options = chosen
    return build_data(options)


def run_pages(
    folder: Path, table: pd.DataFrame, named: Sequence[NamePair], count: int, given: Path | None = None
) -> Iterator[tuple[str, Figure]]:
    """Pages of single pairs of a run, which its own model registers again, on the scans it was evaluated on.

    Args:
        folder: the run.
        table: its pairs.
        named: the pairs (fixed, moving) to draw; where none are named, the worst and the best.
        count: how many of the worst, and how many of the best.
        given: a checkpoint instead of the run's own.

    Returns:
        What `pair_figures` yields, one at a time. Whatever is wrong with the run is found at once.

    Raises:
        ValueError: if its checkpoint or data set is missing or has changed, or has no such scan.
    """
    setting = setting_of(folder)
    checkpoint = read(find_checkpoint(folder, given))
    data = data_of(folder, checkpoint)
    _check_names(data, named, folder)
    chosen = [("pair", pair) for pair in named] or extreme_pairs(table, measure_of({str(folder): table}), count)
    return pair_figures(checkpoint, data, chosen, setting, "cuda" if torch.cuda.is_available() else "cpu")


def extreme_pairs(table: pd.DataFrame, column: str, count: int) -> list[tuple[str, NamePair]]:
    """The `count` worst and best pairs by a measure, each with a name: `worst_1` is the worst, `best_1` the best."""
    worst, best = worst_and_best(by_quality(table, column).index, count)
    named = [(f"worst_{number}", pair) for number, pair in enumerate(worst, start=1)]
    return named + [(f"best_{number}", pair) for number, pair in enumerate(reversed(best), start=1)]


def pair_figures(
    checkpoint: Checkpoint,
    data: RegistrationData,
    pairs: Sequence[tuple[str, NamePair]],
    setting: Setting,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[str, Figure]]:
    """Register pairs and draw a page of each.

    Args:
        checkpoint: the model.
        data: the set the scans are of.
        pairs: each with a word before the names of its scans in the name of its file.
        setting: r and repeat of the registration.
        device: where to register.

    Yields:
        The name of a file, without its ending, and the figure, as `registration_figure` draws it.
    """
    cascade = checkpoint.build().to(device)
    cases = ListedPairs(data.cases, [pair for _, pair in pairs])
    for number, (word, names) in enumerate(pairs):
        batch = move_data_to_device(collate([cases[number]]), torch.device(device))
        with torch.inference_mode():
            registration = cascade.register(batch, setting.r, setting.repeat)
        yield file_name(word, *names), registration_figure(batch, registration)


def file_name(*words: str) -> str:
    """Words as the name of a file, of characters that any shell takes unquoted."""
    return "_".join(re.sub(r"[^\w.+-]+", "-", word).strip("-.") for word in words)[:200]


def _check_names(data: RegistrationData, pairs: Sequence[NamePair], folder: Path) -> None:
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name not in data.cases.names:
            hint = did_you_mean(name, data.cases.names)
            raise ValueError(f"There is no scan {name!r} in the data set of {folder}.{hint}")


def _model_name(path: Path) -> str:
    description = read(path).description
    specs = (description["model"], description["cascade"])
    return " ".join(spec if isinstance(spec, str) else str(spec["name"]) for spec in specs)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Evaluate again.") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{path} is no summary of an evaluation. Evaluate again.")
    return summary
