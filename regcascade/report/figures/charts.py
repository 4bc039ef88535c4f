"""Charts of one or several methods on the same pairs, from the tables that evaluations write.

A method is a name and its table: a row per pair, indexed by (fixed, moving), with columns such as `dice_mean`,
`dice_liver` and `dice_mean_before` (before registration). Where no pair has Dice, CC takes its place. What a pair lacks
(NaN) is left out and never counts as 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from regcascade.evaluation.layout import BEFORE
from regcascade.report.figures.quality import (
    MEASURES,
    UNREGISTERED,
    Tables,
    before_and_after,
    measure_of,
    worst_and_best,
    worst_first,
)
from regcascade.report.figures.style import (
    GREY,
    empty_figure,
    in_print_style,
    legend_above,
    series_handle,
    series_style,
    shortened,
)
from regcascade.report.runs.run import Run, label_columns
from regcascade.report.tables.measure_names import KNOWN

BINS, PAIRS_A_BIN = 8, 6  # of the mean line in the scatter: so many at most, with so many pairs at least
FILLED = 0.6  # opacity of boxes
PAIRS_FOR_PERCENTILES = 20  # with fewer, the 5th and 95th say nothing
OF_STRUCTURES = "x+1234*"
DISTANCES = ("landmark_distance_mm", "landmark_distance_voxels")
_LONGEST_NAME = 22
_MOST_CASES = 20


@in_print_style
def label_boxes(tables: Tables) -> Figure:
    """Draw box plots of Dice: a group per label, and of their mean; in it a box per method and one before registration.

    A box reaches from the first to the third quartile with the median as a line. Whiskers end at the 5th and 95th
    percentile, and pairs beyond them are dots; of fewer than 20 pairs whiskers reach to the lowest and the highest.
    """
    measure = measure_of(tables)
    columns = {measure: "mean" if measure == "dice_mean" else MEASURES[measure]}
    if measure == "dice_mean":
        labels = dict.fromkeys(column for table in tables.values() for column in label_columns(table))
        columns |= {column: column.removeprefix("dice_").replace("_", " ") for column in labels}
    first = next(iter(tables.values()))
    series = [(name, table, "", series_style(number)[0]) for number, (name, table) in enumerate(tables.items())]
    if len(_known(first, measure + BEFORE)):
        series.insert(0, (UNREGISTERED, first, BEFORE, "white"))
    group = len(series) + 1
    pitch = 0.14 if len(series) * len(columns) <= 60 else 0.08
    figure = empty_figure(max(1.0 + pitch * len(columns) * group, 1.6))
    axes = figure.subplots()
    thin = {"linewidth": 0.6}
    ends = (5, 95) if len(first) >= PAIRS_FOR_PERCENTILES else (0, 100)
    for place, (_, table, suffix, colour) in enumerate(series):
        values = {group * k + place: _known(table, column + suffix) for k, column in enumerate(columns)}
        values = {position: known for position, known in values.items() if len(known)}
        dots = GREY if colour == "white" else colour
        axes.boxplot(
            list(values.values()),
            positions=list(values),
            orientation="horizontal",
            widths=0.8,
            whis=ends,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": to_rgba(colour, FILLED)} | thin,
            medianprops={"color": "black", "linewidth": 1.4},
            whiskerprops=thin,
            capprops=thin,
            flierprops={"marker": ".", "markersize": 2.5, "markerfacecolor": dots, "markeredgecolor": dots},
        )
    middles = [group * k + (len(series) - 1) / 2 for k in range(len(columns))]
    axes.set_yticks(middles, [shortened(name, _LONGEST_NAME) for name in columns.values()])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    pairs = f"{len(first)} pair{'' if len(first) == 1 else 's'}"
    whiskers = "5 to 95 %" if ends == (5, 95) else "all pairs"
    axes.set_xlabel(f"{MEASURES[measure]} of {pairs}; box: quartiles, whiskers: {whiskers}")
    handles = [
        Patch(facecolor=to_rgba(colour, FILLED), edgecolor=GREY, label=shortened(n, 40)) for n, _, _, colour in series
    ]
    legend_above(figure, handles)
    return figure


@in_print_style
def against_initial(tables: Tables) -> Figure:
    """Draw Dice after registration against Dice before: a mark per pair and method, above the diagonal if it improved.

    Lines join the means of up to eight groups of equally many pairs, ordered by their initial Dice, of at least six
    pairs each.

    Raises:
        ValueError: if no method has the measure before registration.
    """
    measure = measure_of(tables)
    figure = empty_figure(4.2)
    axes, ends, lines = figure.subplots(), [], False
    for number, table in enumerate(tables.values()):
        both = before_and_after(table, measure).sort_values(measure + BEFORE)
        if both.empty:
            continue
        initial, after = (both[column].to_numpy() for column in both)
        colour, marker = series_style(number)
        size = 12 if len(both) < 500 else 4
        axes.scatter(initial, after, s=size, color=colour, marker=marker, alpha=0.45, linewidths=0)
        bins = min(BINS, len(both) // PAIRS_A_BIN)
        if bins > 1:
            means = [[part.mean() for part in np.array_split(values, bins)] for values in (initial, after)]
            axes.plot(*means, color=colour, marker=marker, markersize=5, markeredgecolor="white", linewidth=1.5)
            lines = True
        ends += [initial.min(), initial.max()]
    if not ends:
        raise ValueError(f"No pair has both {measure} and {measure}{BEFORE}, which this figure is drawn against.")
    low, high = min(ends), max(ends)
    axes.axline((low, low), slope=1, color=GREY, linestyle="--", linewidth=1, zorder=0)
    margin = 0.03 * max(high - low, 0.1)
    axes.set_xlim(low - margin, high + margin)
    name = MEASURES[measure]
    meaning = "; lines: means of groups of pairs of similar initial " + name if lines else ""
    axes.set(xlabel=f"{name} before registration{meaning}", ylabel=f"{name} after registration")
    no_change = Line2D([], [], color=GREY, linestyle="--", label="no change")
    legend_above(figure, [*(series_handle(k, name, lines) for k, name in enumerate(tables)), no_change])
    return figure


@in_print_style
def against_cascades(runs: Sequence[Run]) -> Figure:
    """Draw Dice and landmark distance against the number of cascades (RCN, Figure 5), and against repeats of each.

    Left: against n, a line for each model and r. Right, where r varies: against r, a line for each model and n. The
    axes are logarithmic, as in the paper. A mark is the mean of a run; a line joins the means of those with equal
    settings. Small marks are means of single structures; bars are quartiles of pairs, where a measure has none.

    Raises:
        ValueError: if neither n nor r varies.
    """
    settings = pd.DataFrame([run.what[:3] for run in runs], columns=["model", "n", "r"])
    panels = [(x, by) for x, by in (("n", "r"), ("r", "n")) if settings[x].nunique() > 1]
    if not panels:
        raise ValueError("Dice against n and r needs runs that differ in n or r.")
    tables = {run.name: run.pairs for run in runs}
    measures = [measure_of(tables), *[c for c in DISTANCES if any(len(_known(one, c)) for one in tables.values())][:1]]
    labels = list(dict.fromkeys(column for table in tables.values() for column in label_columns(table)))
    marks = dict(zip(labels, OF_STRUCTURES if len(labels) <= len(OF_STRUCTURES) else "." * len(labels), strict=False))
    figure = empty_figure(0.8 + 2.4 * len(measures))
    grid = figure.subplots(len(measures), len(panels), sharex="col", sharey="row", squeeze=False)
    for column, (x, by) in zip(grid.T, panels, strict=True):
        series, handles = list(settings.groupby(["model", by], sort=True)), []
        for number, ((model, other), part) in enumerate(series):
            handles.append(series_handle(number, ", ".join(filter(None, [str(model), f"{by} = {other}"]))))
            places = part[x] * 1.03 ** (number - (len(series) - 1) / 2)  # no mark hides another
            for axes, measure in zip(column, measures, strict=True):
                _draw_against(axes, places, number, [runs[place].pairs for place in part.index], measure, marks)
        ticks = FixedLocator(sorted(settings[x].unique()))
        column[0].set_xscale("log")
        column[0].xaxis.set(major_locator=ticks, minor_locator=NullLocator(), major_formatter=ScalarFormatter())
        column[0].legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
        column[-1].set_xlabel("n, cascaded networks" if x == "n" else "r, times each network is applied")
    for axes, measure in zip(grid[:, 0], measures, strict=True):
        axes.set_ylabel(KNOWN[measure].name)
    if len(labels) > 1:
        named = {mark: name.removeprefix("dice_").replace("_", " ") for name, mark in marks.items()}
        named = named if len(named) > 1 else {".": f"each of {len(labels)} structures"}
        structures = [Line2D([], [], color=GREY, marker=mark, ls="", label=name) for mark, name in named.items()]
        figure.legend(handles=structures, loc="outside lower center", ncols=4)
    return figure


def _draw_against(
    axes: Axes, places: pd.Series, number: int, tables: Sequence[pd.DataFrame], measure: str, marks: Mapping[str, str]
) -> None:
    """Draw the runs of one line: their means, and those of their structures or the quartiles of their pairs."""
    colour, marker = series_style(number)
    means = pd.Series([table.get(measure, pd.Series(dtype=float)).mean() for table in tables], places.index)
    line = means.groupby(places).mean()
    axes.plot(line.index, line, color=colour, linewidth=1.5)
    axes.plot(places, means, color=colour, marker=marker, markersize=6, linestyle="none")
    for place, table in zip(places, tables, strict=True):
        if measure == "dice_mean" and len(marks) > 1:
            for column in marks.keys() & set(table):
                axes.plot(place, table[column].mean(), marks[column], color=colour, markersize=5, alpha=0.6)
        elif len(values := _known(table, measure)):
            axes.vlines(place, *np.quantile(values, [0.25, 0.75]), color=colour, linewidth=1)


@in_print_style
def extreme_cases(tables: Tables, count: int = 5) -> Figure:
    """Draw the worst and the best pairs, by the mean over methods of their Dice: a line per pair.

    The ring is before registration, the marks are the methods. Pairs that a method lacks are left out. At most `count`
    are the worst and as many the best; each pair is shown once.
    """
    measure, order = measure_of(tables), worst_first(tables)
    worst, best = worst_and_best(order, min(count, _MOST_CASES))
    figure = empty_figure(1.0 + 0.19 * (len(worst) + len(best) + 1))
    axes = figure.subplots()
    rows = {pair: row for row, pair in enumerate(worst)}
    rows |= {pair: row for row, pair in enumerate(best, start=len(worst) + bool(len(worst)))}
    first = next(iter(tables.values()))
    handles = [series_handle(number, name, joined=False) for number, name in enumerate(tables)]
    if ring := len(_known(first, measure + BEFORE)) > 0:
        mark = Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="none", label=UNREGISTERED)
        handles.insert(0, mark)
    for pair, row in rows.items():
        results = {k: t.loc[pair, :][measure] for k, t in enumerate(tables.values()) if measure in t}
        values = list(results.values())
        if ring:
            values.append(first.loc[pair, :][measure + BEFORE])
            axes.plot(values[-1], row, "o", color=GREY, markerfacecolor="white", markersize=7.5, zorder=3)
        axes.plot([np.nanmin(values), np.nanmax(values)], [row, row], color="0.8", linewidth=1.5, zorder=1)
        for number, value in results.items():
            colour, marker = series_style(number)
            axes.plot(value, row, marker, color=colour, markersize=5.5, alpha=0.85, zorder=4)
    names = [f"{shortened(moving, _LONGEST_NAME)} → {shortened(fixed, _LONGEST_NAME)}" for fixed, moving in rows]
    axes.set_yticks(list(rows.values()), names)
    axes.set_ylim(max(rows.values(), default=0) + 0.6, -0.6)  # the worst on top
    some = f"above: the {len(worst)} worst of {len(order)} pairs, below: the best"
    axes.set_xlabel(f"{MEASURES[measure]}; {some if best else 'all pairs, the worst first'}")
    legend_above(figure, handles)
    return figure


def _known(table: pd.DataFrame, column: str) -> np.ndarray:
    return table[column].dropna().to_numpy() if column in table else np.empty(0)
