"""All figures of evaluated runs: charts of their pairs, and pages of single pairs, which are registered again."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from matplotlib.figure import Figure

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import read
from regcascade.data.pairs import ListedPairs, NamePair, collate
from regcascade.evaluation.baselines import RegistrationFailed
from regcascade.report.figures.charts import against_cascades, against_initial, extreme_cases, label_boxes
from regcascade.report.figures.quality import Tables, has_initial, measure_of, worst_and_best, worst_first
from regcascade.report.figures.registration import registration_figure
from regcascade.report.figures.stage_charts import against_stages
from regcascade.report.runs.reload import Again, again, find_checkpoint, setting_of
from regcascade.utils.registry import did_you_mean


def set_figures(
    tables: Tables, settings: pd.DataFrame | None = None, stages: Mapping[str, pd.DataFrame] | None = None
) -> Iterator[tuple[str, Figure]]:
    """Draw the charts that there are numbers for, each with a name for its file."""
    yield "labels", label_boxes(tables)
    if has_initial(tables):
        yield "initial", against_initial(tables)
    yield "cases", extreme_cases(tables)
    if settings is not None and (settings[["n", "r"]].nunique() > 1).any():
        yield "cascades", against_cascades(settings)
    if stages:
        yield "stages", against_stages(stages)


def settings_of(folders: Sequence[Path], tables: Tables, given: Path | None = None) -> pd.DataFrame | None:
    """Collect the rows of `against_cascades`, of the runs of cascades; None if no run has Dice, n and r.

    Args:
        folders: of the runs.
        tables: of each run, in the same order.
        given: a checkpoint to read instead of the run's own.
    """
    if measure_of(tables) != "dice_mean":
        return None
    rows = []
    for folder, table in zip(folders, tables.values(), strict=True):
        try:
            setting = setting_of(folder)
            description = read(find_checkpoint(folder, given)).description
        except ValueError:
            continue
        specs = (description["model"], description["cascade"])
        model = " ".join(spec if isinstance(spec, str) else str(spec["name"]) for spec in specs)
        rows.append({"model": model, "n": setting.n, "r": setting.r, "mean": table["dice_mean"].mean()})
    return pd.DataFrame(rows) if rows else None


def run_pages(
    folder: Path, table: pd.DataFrame, named: Sequence[NamePair], count: int, given: Path | None = None
) -> Iterator[tuple[str, Figure]]:
    """Draw pages of single pairs of a run, registered again by what it evaluated, as `pair_figures` does.

    Args:
        folder: the run.
        table: its pairs.
        named: the pairs (fixed, moving) to draw; where none are named, the worst and the best.
        count: how many of the worst, and how many of the best.
        given: a checkpoint instead of the run's own.

    Raises:
        ValueError: at once, if its checkpoint, method or data set is missing or has changed, or has no such scan.
    """
    run = again(folder, given)
    scans = run.data.cases.names
    for name in dict.fromkeys(name for pair in named for name in pair):
        if name not in scans:
            hint = did_you_mean(name, scans)
            raise ValueError(f"There is no scan {name!r} in the data set of {folder}.{hint}")
    chosen = [("pair", pair) for pair in named] or extreme_pairs({str(folder): table}, count)
    return pair_figures(run, chosen, "cuda" if torch.cuda.is_available() else "cpu")


def extreme_pairs(tables: Tables, count: int) -> list[tuple[str, NamePair]]:
    """Choose the `count` worst and best pairs, each with a name: `worst_1` is the worst, `best_1` the best."""
    worst, best = worst_and_best(worst_first(tables), count)
    named = [(f"worst_{number}", pair) for number, pair in enumerate(worst, start=1)]
    return named + [(f"best_{number}", pair) for number, pair in enumerate(reversed(best), start=1)]


def pair_figures(
    run: Again, pairs: Sequence[tuple[str, NamePair]], device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Figure]]:
    """Register pairs, each with a word to begin the name of its file, and yield that name and a page of each.

    Raises:
        ValueError: if a method gives up on a pair.
    """
    device = torch.device(device)
    if isinstance(run.method, Cascade):
        run.method.to(device).eval()
    elif not run.method.on_gpu:
        device = torch.device("cpu")
    cases = ListedPairs(run.data.cases, [pair for _, pair in pairs])
    for number, (word, names) in enumerate(pairs):
        batch = move_data_to_device(collate([cases[number]]), device)
        try:
            with torch.inference_mode():
                registration = run.method.register(batch, run.setting.r, run.setting.repeat)
        except RegistrationFailed as failure:
            raise ValueError(f"{names[1]} onto {names[0]}: {failure}") from failure
        yield file_name(word, *names), registration_figure(batch, registration)


def file_name(*words: str) -> str:
    """Join words to the name of a file that needs no quotes in a shell.

    >>> file_name("worst_1", "a b/c")
    'worst_1_a-b-c'
    """
    return "_".join(re.sub(r"[^\w.+-]+", "-", word).strip("-.") for word in words)[:200]
