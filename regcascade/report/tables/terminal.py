"""Tables for the terminal and for logs: measures before and after registration, and the size of a model."""

from collections.abc import Sequence

import pandas as pd
from rich.markup import escape
from rich.table import Table

from regcascade.evaluation.layout import BEFORE, SET
from regcascade.evaluation.tables import failures
from regcascade.report.tables.markup import rich_table
from regcascade.report.tables.measures import MEASURES, Measure, mean_and_std, rounded
from regcascade.utils.memory import MIB

# Of the largest displacement the mean over pairs says little; the files have it.
SHOWN = [measure for measure in MEASURES if not measure.column.startswith("displacement_max")]


def measure_table(rows: pd.DataFrame, name: str = "") -> Table:
    """Mean and standard deviation over pairs of each measure, before and after, and the mean change.

    Args:
        rows: a row per pair, as `evaluation.evaluate` yields them: columns such as `dice_mean` and `dice_mean_before`.
            Measures that no pair has are left out; one that only some pairs have says of how many it is. The change is
            the mean over the pairs that have both. The standard deviation is a sample one, as in `summary.json`.
        name: of the set they are of, for the title.

    Returns:
        A table of rich, at most 80 characters wide.
    """
    count = len(rows)
    title = "One pair" if count == 1 else f"Mean (standard deviation) over {count} pairs"
    title += f", {failed} failed" if (failed := failures(rows)) else ""
    table = rich_table(f"{name}: {title}" if name else title)
    table.add_column("Measure")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    for measure in SHOWN:
        columns = [measure.column + BEFORE, measure.column]
        both = rows.reindex(columns=columns).astype(float)
        known = int(both[measure.column].count())
        if known:
            name = measure.name if known == count else f"{measure.name}, {known} pairs"
            cells = [mean_and_std(both[one].mean(), both[one].std(ddof=1), measure.decimals) for one in columns]
            change = (both[measure.column] - both[measure.column + BEFORE]).mean()
            table.add_row(escape(name), *cells, _change(change, measure))
    return table


def measure_tables(rows: pd.DataFrame) -> list[Table]:
    """The table of all pairs and, where they are of several sets, one of each set before it."""
    sets = list(rows.groupby(SET, sort=False)) if SET in rows else []
    return [*(measure_table(part, str(name)) for name, part in sets if len(sets) > 1), measure_table(rows)]


def model_table(rows: Sequence[tuple[str, int]]) -> Table:
    """The parameters of each part of a model and their size: of the weights, and as DR-Net counts.

    Args:
        rows: the name and the number of parameters of each part; their sum is added at the end.

    Returns:
        A table with the columns part, parameters, MiB (4 bytes a parameter) and paper size MiB (12 bytes: the weight
        and Adam's two moments).
    """
    table = rich_table("Model")
    table.add_column("part")
    for column in ("parameters", "MiB", "paper size MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, parameters in rows:
        table.add_row(escape(name), *_sizes(parameters))
    if len(rows) != 1:
        table.add_section()
        table.add_row("total", *_sizes(sum(parameters for _, parameters in rows)))
    return table


def _change(change: float, measure: Measure) -> str:
    text = rounded(change, measure.decimals, "+")
    if change * measure.better == 0 or text.strip("+-0.") == "":
        return text
    return f"[{'green' if change * measure.better > 0 else 'red'}]{text}[/]"


def _sizes(parameters: int) -> list[str]:
    return [f"{parameters:,}", f"{4 * parameters / MIB:,.1f}", f"{12 * parameters / MIB:,.1f}"]
