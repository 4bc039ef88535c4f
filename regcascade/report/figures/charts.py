"""Charts of one or several methods on the same pairs, from the tables that evaluations write.

A method is a name and its table: a row per pair, indexed by (fixed, moving), with columns such as `dice_mean`,
`dice_liver` and `dice_mean_before` (before registration). Where no pair has Dice, CC takes its place. What a pair lacks
(NaN) is left out and never counts as 0.
"""

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
    after_registration,
    before_and_after,
    has_initial,
    measure_of,
    worst_and_best,
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
from regcascade.report.runs.run import label_columns

BINS, PAIRS_A_BIN = 8, 6  # of the mean line in the scatter: so many at most, with so many pairs at least
FILLED = 0.6  # opacity of boxes
PAIRS_FOR_PERCENTILES = 20  # with fewer, the 5th and 95th say nothing
_LONGEST_NAME = 22
_MOST_CASES = 20


@in_print_style
def label_boxes(tables: Tables) -> Figure:
    """Box plots of Dice: a group per label, and of their mean; in it a box per method and one before registration.

    A box reaches from the first to the third quartile with the median as a line; whiskers end at the 5th and 95th
    percentile, and pairs beyond them are dots; of fewer than 20 pairs whiskers reach to the lowest and the highest.

    Args:
        tables: the methods.
    """
    measure = measure_of(tables)
    columns = [measure]
    if measure == "dice_mean":
        columns += dict.fromkeys(column for table in tables.values() for column in label_columns(table))
    first = next(iter(tables.values()))
    series = [(UNREGISTERED, first, BEFORE, "white")] if _has_before(first, measure) else []
    series += [(name, table, "", series_style(number)[0]) for number, (name, table) in enumerate(tables.items())]
    pitch = 0.14 if len(series) * len(columns) <= 60 else 0.08
    figure = empty_figure(max(1.0 + pitch * len(columns) * (len(series) + 1), 1.6), layout="constrained")
    axes = figure.subplots()
    ends = (5, 95) if len(first) >= PAIRS_FOR_PERCENTILES else (0, 100)
    for place, (_, table, suffix, colour) in enumerate(series):
        values = [_known(table, column + suffix) for column in columns]
        positions = [group * (len(series) + 1) + place for group in range(len(columns))]
        _draw_boxes(axes, values, positions, colour, ends)
    middles = [group * (len(series) + 1) + (len(series) - 1) / 2 for group in range(len(columns))]
    axes.set_yticks(middles, [shortened(_label_name(column), _LONGEST_NAME) for column in columns])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    whiskers = "5 to 95 %" if ends == (5, 95) else "all pairs"
    axes.set_xlabel(f"{MEASURES[measure]} of {_count(tables)}; box: quartiles, whiskers: {whiskers}")
    handles = [
        Patch(facecolor=to_rgba(colour, FILLED), edgecolor=GREY, label=shortened(n, 40)) for n, _, _, colour in series
    ]
    legend_above(figure, handles)
    return figure


@in_print_style
def against_initial(tables: Tables) -> Figure:
    """Dice after registration against Dice before: a dot per pair and method, those above the diagonal improved.

    Pairs with a low initial Dice need a large deformation. Lines join the means of up to eight groups of equally
    many pairs, ordered by their initial Dice, of at least six pairs each.

    Args:
        tables: the methods.

    Raises:
        ValueError: if no method has the measure before registration.
    """
    measure = measure_of(tables)
    if not has_initial(tables):
        raise ValueError(f"No pair has both {measure} and {measure}{BEFORE}, which this figure is drawn against.")
    figure = empty_figure(4.2, layout="constrained")
    axes, ends, lines = figure.subplots(), [], False
    for number, table in enumerate(tables.values()):
        both = before_and_after(table, measure).sort_values(measure + BEFORE)
        if both.empty:
            continue
        initial, after = (both[column].to_numpy() for column in both)
        colour, marker = series_style(number)
        axes.scatter(
            initial, after, s=12 if len(both) < 500 else 4, color=colour, marker=marker, alpha=0.45, linewidths=0
        )
        bins = min(BINS, len(both) // PAIRS_A_BIN)
        if bins > 1:
            means = [[part.mean() for part in np.array_split(values, bins)] for values in (initial, after)]
            axes.plot(*means, color=colour, marker=marker, markersize=5, markeredgecolor="white", linewidth=1.5)
            lines = True
        ends += [initial.min(), initial.max()]
    low, high = min(ends), max(ends)
    axes.axline((low, low), slope=1, color=GREY, linestyle="--", linewidth=1, zorder=0)
    margin = 0.03 * max(high - low, 0.1)
    axes.set_xlim(low - margin, high + margin)
    name = MEASURES[measure]
    meaning = "; lines: means of groups of pairs of similar initial " + name if lines else ""
    axes.set(xlabel=f"{name} before registration{meaning}", ylabel=f"{name} after registration")
    no_change = Line2D([], [], color=GREY, linestyle="--", label="no change")
    legend_above(figure, [*_handles(tables, joined=lines), no_change])
    return figure


@in_print_style
def against_cascades(settings: pd.DataFrame) -> Figure:
    """Mean Dice against the number of cascades (RCN, Figure 5), and against how often each is applied.

    Left: against n, a line for each model and r. Right, where r varies: against r, a line for each model and n. The
    axes are logarithmic, as in the paper. A mark is a run; a line joins the means of those with equal settings.

    Args:
        settings: a row per run: `model` (its name), `n`, `r`, and `mean` of the pairs' Dice.

    Raises:
        ValueError: if n and r are the same in all runs.
    """
    panels = [(x, by) for x, by in (("n", "r"), ("r", "n")) if settings[x].nunique() > 1]
    if not panels:
        raise ValueError("Dice against n and r needs runs that differ in n or r.")
    figure = empty_figure(3.2, layout="constrained")
    for axes, (x, by) in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True):
        handles = []
        for number, ((model, other), part) in enumerate(settings.groupby(["model", by], sort=True)):
            colour, marker = series_style(number)
            name = f"{model}, {by} = {other}" if model else f"{by} = {other}"
            line = part.groupby(x)["mean"].mean()
            axes.plot(line.index, line, color=colour, linewidth=1.5)
            axes.plot(part[x], part["mean"], color=colour, marker=marker, markersize=6, linestyle="none")
            handles.append(series_handle(number, name, joined=len(line) > 1))
        axes.set_xscale("log")
        axes.xaxis.set(
            major_locator=FixedLocator(sorted(settings[x].unique())),
            minor_locator=NullLocator(),
            major_formatter=ScalarFormatter(),
        )
        axes.set_xlabel("n, cascaded networks" if x == "n" else "r, times each network is applied")
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    figure.axes[0].set_ylabel("Mean Dice")
    return figure


@in_print_style
def extreme_cases(tables: Tables, count: int = 5) -> Figure:
    """The worst and the best pairs, by the mean over methods of their Dice: a line per pair.

    The ring is before registration, the marks are the methods.

    Args:
        tables: the methods; of the pairs that all of them have.
        count: how many of the worst, and how many of the best; each pair is shown once.
    """
    measure, after = measure_of(tables), after_registration(tables)
    order = after.mean(axis=1).sort_values(kind="stable").index
    worst, best = worst_and_best(order, min(count, _MOST_CASES))
    figure = empty_figure(1.0 + 0.19 * (len(worst) + len(best) + 1), layout="constrained")
    axes = figure.subplots()
    rows = {pair: row for row, pair in enumerate(worst)}
    rows |= {pair: row for row, pair in enumerate(best, start=len(worst) + bool(len(worst)))}
    first = next(iter(tables.values()))
    for pair, row in rows.items():
        results = list(after.loc[[pair]].iloc[0])
        values = list(results)
        if _has_before(first, measure):
            initial = float(first.loc[[pair], measure + BEFORE].iloc[0])
            values.append(initial)
            axes.plot(initial, row, "o", color=GREY, markerfacecolor="white", markersize=7.5, zorder=3)
        axes.plot([min(values), max(values)], [row, row], color="0.8", linewidth=1.5, zorder=1)
        for number, value in enumerate(results):
            colour, marker = series_style(number)
            axes.plot(value, row, marker, color=colour, markersize=5.5, alpha=0.85, zorder=4)
    names = [f"{shortened(moving, _LONGEST_NAME)} → {shortened(fixed, _LONGEST_NAME)}" for fixed, moving in rows]
    axes.set_yticks(list(rows.values()), names)
    axes.set_ylim(max(rows.values(), default=0) + 0.6, -0.6)  # the worst on top
    shown = (
        f"above: the {len(worst)} worst of {len(order)} pairs, below: the best"
        if best
        else "all pairs, the worst first"
    )
    axes.set_xlabel(f"{MEASURES[measure]}; {shown}")
    ring = Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="none", label=UNREGISTERED)
    legend_above(figure, [*([ring] if _has_before(first, measure) else []), *_handles(tables, joined=False)])
    return figure


def _draw_boxes(axes: Axes, values: list[np.ndarray], positions: list[int], colour: str, ends: tuple[int, int]) -> None:
    drawn = [(column, position) for column, position in zip(values, positions, strict=True) if len(column)]
    if not drawn:
        return
    dots = GREY if colour == "white" else colour
    axes.boxplot(
        [column for column, _ in drawn],
        positions=[position for _, position in drawn],
        orientation="horizontal",
        widths=0.8,
        whis=ends,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": to_rgba(colour, FILLED), "linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 1.4},
        whiskerprops={"linewidth": 0.6},
        capprops={"linewidth": 0.6},
        flierprops={"marker": ".", "markersize": 2.5, "markerfacecolor": dots, "markeredgecolor": dots},
    )


def _handles(tables: Tables, joined: bool) -> list[Line2D]:
    return [series_handle(number, name, joined) for number, name in enumerate(tables)]


def _label_name(column: str) -> str:
    if column in MEASURES:
        return "mean" if column == "dice_mean" else MEASURES[column]
    return column.removeprefix("dice_").replace("_", " ")


def _known(table: pd.DataFrame, column: str) -> np.ndarray:
    return table[column].dropna().to_numpy() if column in table else np.empty(0)


def _has_before(table: pd.DataFrame, measure: str) -> bool:
    return measure + BEFORE in table and bool(table[measure + BEFORE].notna().any())


def _count(tables: Tables) -> str:
    counts = sorted({len(table) for table in tables.values()})
    return f"{' to '.join(map(str, counts[:: max(len(counts) - 1, 1)]))} pair{'' if counts == [1] else 's'}"
