"""Tables for the terminal: measures before and after registration, and the size of a model."""

from collections.abc import Sequence

import pandas as pd
from rich.markup import escape
from rich.table import Table

from regcascade.evaluation.layout import BEFORE, SET
from regcascade.evaluation.tables import failures
from regcascade.report.tables.markup import rich_table
from regcascade.report.tables.measure_names import MEASURES, mean_and_std, rounded
from regcascade.utils.memory import MIB


def measure_table(rows: pd.DataFrame, name: str = "") -> Table:
    """Tabulate mean and sample standard deviation over pairs of each measure, before and after, and the mean change.

    The largest displacement is left out. The table has at most 80 characters a line.

    Args:
        rows: a row per pair, with columns such as `dice_mean` and `dice_mean_before`. Measures that no pair has are
            left out; one that only some pairs have says of how many it is. The change is over the pairs that have both.
        name: of the set they are of, for the title.
    """
    count = len(rows)
    title = "One pair" if count == 1 else f"Mean (standard deviation) over {count} pairs"
    title += f", {failed} failed" if (failed := failures(rows)) else ""
    table = rich_table(f"{name}: {title}" if name else title)
    table.add_column("Measure")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    for measure in MEASURES:
        both = rows.reindex(columns=[measure.column + BEFORE, measure.column]).astype(float)
        known = int(both[measure.column].count())
        if not known or measure.column.startswith("displacement_max"):  # whose mean over pairs says little
            continue
        name = measure.name if known == count else f"{measure.name}, {known} pairs"
        cells = [mean_and_std(both[one].mean(), both[one].std(ddof=1), measure.decimals) for one in both]
        change = (both[measure.column] - both[measure.column + BEFORE]).mean()
        text = rounded(change, measure.decimals, "+")
        if change * measure.better and text.strip("+-0."):
            text = f"[{'green' if change * measure.better > 0 else 'red'}]{text}[/]"
        table.add_row(escape(name), *cells, text)
    return table


def measure_tables(rows: pd.DataFrame) -> list[Table]:
    """Tabulate all pairs and, where they are of several sets, each set before them."""
    sets = list(rows.groupby(SET, sort=False)) if SET in rows else []
    return [*(measure_table(part, str(name)) for name, part in sets if len(sets) > 1), measure_table(rows)]


def model_table(rows: Sequence[tuple[str, int]]) -> Table:
    """Tabulate the number of parameters of each part of a model, and their sum.

    Sizes are in MiB, with 4 bytes a parameter, and with 12 as DR-Net counts (the weight and Adam's two moments).
    """
    table = rich_table("Model")
    table.add_column("part")
    for column in ("parameters", "MiB", "paper size MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    total = [("total", sum(parameters for _, parameters in rows))] if len(rows) != 1 else []
    for number, (name, parameters) in enumerate([*rows, *total]):
        if number == len(rows):
            table.add_section()
        sizes = (f"{size * parameters / MIB:,.1f}" for size in (4, 12))
        table.add_row(escape(name), f"{parameters:,}", *sizes)
    return table
