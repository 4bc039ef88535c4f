"""Tables for the terminal and for logs: measures before and after registration, and the size of a model."""

import math
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from regcascade.data.preprocessing.prepare import DONE, EXCLUDED, FAILED, KEPT, Outcome
from regcascade.evaluation.layout import BEFORE
from regcascade.evaluation.run import SET, failures
from regcascade.report.tables.measures import MEASURES, Measure
from regcascade.utils.memory import MIB

# Of the largest displacement the mean over pairs says little; the files have it.
SHOWN = [measure for measure in MEASURES if not measure.column.startswith("displacement_max")]


def measure_table(rows: pd.DataFrame, name: str = "") -> Table:
    """Mean and standard deviation over pairs of each measure, before and after, and the mean change.

    Args:
        rows: a row per pair, as `evaluation.evaluate` yields them: columns such as `dice_mean` and
            `dice_mean_before`. Measures that no pair has are left out, and so is NaN; a measure that only
            some of the pairs have says of how many it is. The change is the mean over the pairs that have
            both. The standard deviation is a sample one, as in `summary.json`.
        name: of the set they are of, for the title.

    Returns:
        A table of rich for `Console().print`, which leaves out all colours where the output is not a
        terminal; it fits into 80 characters.
    """
    count = len(rows)
    title = "One pair" if count == 1 else f"Mean (standard deviation) over {count} pairs"
    title += f", {failed} failed" if (failed := failures(rows)) else ""
    table = _table(f"{name}: {title}" if name else title)
    table.add_column("Measure")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    for measure in SHOWN:
        after = _values(rows, measure.column)
        known = int(after.notna().sum())
        if known:
            before = _values(rows, measure.column + BEFORE)
            name = measure.name if known == count else f"{measure.name}, {known} pairs"
            cells = [_spread(before, measure.decimals), _spread(after, measure.decimals)]
            table.add_row(escape(name), *cells, _change((after - before).mean(), measure))
    return table


def measure_tables(rows: pd.DataFrame) -> list[Table]:
    """The table of all pairs and, where they are of several sets, one of each set before it."""
    sets = list(rows.groupby(SET, sort=False)) if SET in rows else []
    return [*(measure_table(part, str(name)) for name, part in sets if len(sets) > 1), measure_table(rows)]


def model_table(rows: Sequence[tuple[str, int]]) -> Table:
    """The parameters of each part of a model and their size: of the weights, and as the second paper counts.

    Args:
        rows: the name and the number of parameters of each part; their sum is added at the end.

    Returns:
        A table with the columns part, parameters, MiB (4 bytes a parameter) and paper size MiB (12 bytes: the
        weight and Adam's two moments).
    """
    table = _table("Model")
    table.add_column("part")
    for column in ("parameters", "MiB", "paper size MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    total = sum(parameters for _, parameters in rows)
    for name, parameters in rows:
        table.add_row(escape(name), *_sizes(parameters))
    if len(rows) != 1:
        table.add_section()
        table.add_row("total", *_sizes(total))
    return table


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """How many scans became what, and each that is left out with the reason."""
    table = _table(f"{len(outcomes)} scans")
    table.add_column("outcome")
    table.add_column("scans", justify="right")
    table.add_column("which and why", overflow="fold")
    for outcome in (DONE, KEPT, EXCLUDED, FAILED):
        those = [one for one in outcomes if one.outcome == outcome]
        named = those if outcome == FAILED else []
        reasons = "\n".join(f"{one.name}: {one.reason}" for one in named)
        if those:
            table.add_row(outcome, str(len(those)), escape(reasons))
    return table


def _table(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.show_edge = False
    return table


def _values(rows: pd.DataFrame, column: str) -> pd.Series:
    if column not in rows:
        return pd.Series(math.nan, index=rows.index, dtype=float)
    return rows[column].astype(float)


def _spread(values: pd.Series, decimals: int) -> str:
    mean, deviation = values.mean(), values.std(ddof=1)
    if math.isnan(mean):
        return "-"
    return f"{mean:.{decimals}f}" + ("" if math.isnan(deviation) else f" ({deviation:.{decimals}f})")


def _change(change: float, measure: Measure) -> str:
    if math.isnan(change):
        return "-"
    text = f"{change:+.{measure.decimals}f}"
    if float(text) == 0 or measure.better == 0:
        return text
    style = "green" if change * measure.better > 0 else "red"
    return f"[{style}]{text}[/]"


def _sizes(parameters: int) -> list[str]:
    return [f"{parameters:,}", f"{4 * parameters / MIB:,.1f}", f"{12 * parameters / MIB:,.1f}"]
