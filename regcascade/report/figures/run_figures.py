"""All figures of evaluated runs: charts of their pairs, and pages of single pairs, which are registered again."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from matplotlib.figure import Figure

from regcascade.cascades import Cascade
from regcascade.data.pairs import ListedPairs, NamePair, collate
from regcascade.evaluation.baselines import RegistrationFailed
from regcascade.registration import Registration
from regcascade.report.figures.charts import against_cascades, against_initial, extreme_cases, label_boxes
from regcascade.report.figures.quality import Tables, has_initial, worst_and_best, worst_first
from regcascade.report.figures.registration import registration_figure
from regcascade.report.figures.side_by_side import side_by_side
from regcascade.report.figures.stage_charts import against_stages
from regcascade.report.runs.reload import Again, again
from regcascade.report.runs.run import Run
from regcascade.types import Batch
from regcascade.utils.registry import did_you_mean


def set_figures(runs: Sequence[Run], stages: Mapping[str, pd.DataFrame] | None = None) -> Iterator[tuple[str, Figure]]:
    """Draw the charts that there are numbers for, each with a name for its file."""
    tables = {run.name: run.pairs for run in runs}
    yield "labels", label_boxes(tables)
    if has_initial(tables):
        yield "initial", against_initial(tables)
    yield "cases", extreme_cases(tables)
    cascades = [run for run in runs if run.what.n]
    if len({run.what[1:3] for run in cascades}) > 1:
        yield "cascades", against_cascades(cascades)
    if stages:
        yield "stages", against_stages(stages)


def runs_again(
    folders: Sequence[Path], names: Sequence[str], failed: list[str], given: Path | None = None
) -> dict[str, Again]:
    """Rebuild what runs evaluated, by their names, with a given checkpoint or their own; `failed` gets why not."""
    found = {}
    for folder, name in zip(folders, names, strict=True):
        try:
            found[name] = again(folder, given)
        except ValueError as error:  # the other runs are to be drawn
            failed.append(f"{name}: {error}")
    return found


def extreme_pairs(tables: Tables, count: int) -> list[tuple[str, NamePair]]:
    """Choose the `count` worst and best pairs, each with a name: `worst_1` is the worst, `best_1` the best."""
    worst, best = worst_and_best(worst_first(tables), count)
    named = [(f"worst_{number}", pair) for number, pair in enumerate(worst, start=1)]
    return named + [(f"best_{number}", pair) for number, pair in enumerate(reversed(best), start=1)]


class PairFigure(NamedTuple):
    """A figure of a pair, and the name of its file without its ending; `run` is None for all runs side by side."""

    run: str | None
    pair: NamePair
    file: str
    figure: Figure


def pair_figures(
    runs: Mapping[str, Again], pairs: Sequence[tuple[str, NamePair]], failed: list[str], device: str | None = None
) -> Iterator[PairFigure]:
    """Register pairs, each with a word to begin the name of its file; yield them side by side, and a page of each run.

    Why a run could not register a pair is added to `failed`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    for word, pair in pairs:
        results, file = {}, file_name(word, *pair)
        for name, run in runs.items():
            try:
                results[name] = _registered(run, pair, torch.device(device))
            except (RegistrationFailed, ValueError, OSError) as failure:
                failed.append(f"{name}: {pair[1]} onto {pair[0]}: {failure}")
        if len(results) > 1:
            yield PairFigure(None, pair, file, side_by_side(results))
        yield from (PairFigure(name, pair, file, registration_figure(*found)) for name, found in results.items())


def _registered(run: Again, pair: NamePair, device: torch.device) -> tuple[Batch, Registration]:
    if unknown := [scan for scan in pair if scan not in run.data.cases.names]:
        hint = did_you_mean(unknown[0], run.data.cases.names)
        raise ValueError(f"there is no scan {unknown[0]!r} in the data set of the run.{hint}")
    if isinstance(run.method, Cascade):
        run.method.to(device).eval()
    elif not run.method.on_gpu:
        device = torch.device("cpu")
    batch = move_data_to_device(collate([ListedPairs(run.data.cases, [pair])[0]]), device)
    with torch.inference_mode():
        return batch, run.method.register(batch, run.setting.r, run.setting.repeat)


def file_name(*words: str) -> str:
    """Join words to the name of a file that needs no quotes in a shell.

    >>> file_name("worst_1", "a b/c")
    'worst_1_a-b-c'
    """
    return "_".join(re.sub(r"[^\w.+-]+", "-", word).strip("-.") for word in words)[:200]
