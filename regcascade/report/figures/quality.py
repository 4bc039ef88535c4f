"""How well pairs are registered: the measure that tells, and the order of pairs by it."""

from collections.abc import Mapping, Sequence

import pandas as pd

from regcascade.evaluation.layout import BEFORE

Tables = Mapping[str, pd.DataFrame]  # by method
MEASURES = {"dice_mean": "Dice", "cc": "CC"}
UNREGISTERED = "before registration"


def measure_of(tables: Tables) -> str:
    """Choose the column that tells how well pairs are registered: `dice_mean` where any pair has it, else `cc`.

    Raises:
        ValueError: if no pair has either.
    """
    for column in MEASURES:
        if any(column in table and table[column].notna().any() for table in tables.values()):
            return column
    raise ValueError(f"The pairs of {', '.join(tables)} have neither Dice nor CC: there is nothing to draw.")


def before_and_after(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Get the measure before and after registration, of the pairs that have both."""
    return table.reindex(columns=[measure + BEFORE, measure]).dropna()


def has_initial(tables: Tables) -> bool:
    """Whether any pair has the measure both before and after registration."""
    measure = measure_of(tables)
    return any(not before_and_after(table, measure).empty for table in tables.values())


def worst_first(tables: Tables) -> pd.Index:
    """Order the pairs that all methods have by the mean over methods of Dice (or CC), the worst first."""
    measure = measure_of(tables)
    after = pd.DataFrame({name: table[measure] for name, table in tables.items() if measure in table}).dropna()
    return after.mean(axis=1).sort_values(kind="stable").index


def worst_and_best(order: Sequence | pd.Index, count: int) -> tuple[list, list]:
    """Take the first and the last `count` of an order from worst to best; none is in both.

    >>> worst_and_best(["a", "b", "c"], 2)
    (['a', 'b'], ['c'])
    """
    worst = list(order[:count])
    return worst, list(order[max(len(order) - count, len(worst)) :])
