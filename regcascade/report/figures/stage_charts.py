"""Charts of Dice, CC, folding and time after each stage, from the `stages.csv` of evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from regcascade.evaluation.layout import STAGES
from regcascade.evaluation.tables import read_stages
from regcascade.report.figures.style import empty_figure, in_print_style, legend_above, series_handle, series_style

PANELS = {"dice_mean": "Dice", "cc": "CC", "folding_percent": "Folding [%]", "seconds": "Seconds"}
BAND = [0.25, 0.75]  # quantiles
_MOST_NAMED = 12  # steps whose names fit below a panel


def stages_of(folders: Sequence[Path], names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Read the tables of stages of the runs that have one, by their names; a damaged file is a ValueError."""
    found = {}
    for folder, name in zip(folders, names, strict=True):
        if not (folder / STAGES).is_file():
            continue
        try:
            table = read_stages(folder)
            if not {"step", "stage", "repeat"} <= set(table) and len(table):
                raise ValueError("it lacks the columns step, stage and repeat")
        except ValueError as error:
            raise ValueError(f"{folder / STAGES} is damaged: {str(error).strip()}. Evaluate again.") from error
        if len(table):
            found[name] = table
    return found


@in_print_style
def against_stages(stages: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw Dice, CC, folding and time after each step of a registration: means, and a band of the middle half of pairs.

    A step is a stage or its repeat, 0 is before registration. What no pair has (Dice, without labels) has no panel;
    pairs that lack a measure at a step are left out there.
    """
    shown = [c for c in PANELS if any(c in table and table[c].notna().any() for table in stages.values())]
    if not shown:
        raise ValueError("No run has measures after each stage: evaluate with stages=true.")
    rows = (len(shown) + 1) // 2
    figure = empty_figure(0.4 + 1.9 * rows)
    panels = np.atleast_1d(figure.subplots(rows, min(len(shown), 2), sharex=True)).ravel()
    ticks = _named_steps(list(stages.values()))
    for axes, column in zip(panels, shown, strict=False):
        for number, table in enumerate(stages.values()):
            if column not in table:
                continue
            colour, marker = series_style(number)
            by_step = table.dropna(subset=[column]).groupby("step")[column]
            mean, (low, high) = by_step.mean(), (by_step.quantile(end) for end in BAND)
            axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(mean.index, mean, color=colour, marker=marker, markersize=5, linewidth=1.5)
        axes.set_ylabel(PANELS[column])
        axes.tick_params(labelbottom=True)
        if ticks:
            axes.set_xticks(list(ticks), list(ticks.values()))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[len(shown) :]:
        axes.remove()
    steps = "stage, or stage:repeat" if ticks else "step, 0 is before registration"
    figure.supxlabel(f"{steps}; line: mean, band: the middle half of the pairs", fontsize="medium")
    figure.align_ylabels()
    if len(stages) > 1:
        legend_above(figure, [series_handle(number, name) for number, name in enumerate(stages)])
    return figure


def _named_steps(tables: Sequence[pd.DataFrame]) -> dict[int, str]:
    """The names of steps, where all runs call them the same and there is room for them; else none."""
    names: dict[int, set[str]] = {}
    for table in tables:
        repeats = table["repeat"].max() > 1
        for step, stage, repeat in table[["step", "stage", "repeat"]].drop_duplicates().itertuples(index=False):
            name = f"{stage}:{repeat:.0f}" if repeats and stage.isdigit() else stage
            names.setdefault(int(step), set()).add(name)
    fit = len(names) <= _MOST_NAMED and all(len(each) == 1 for each in names.values())
    return {step: each.pop() for step, each in names.items()} if fit else {}
