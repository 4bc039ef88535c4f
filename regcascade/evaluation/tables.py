"""The tables of an evaluation: a row per pair, a row per stage of a pair, and their summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from regcascade.evaluation.layout import FAILED, KEY, PAIRS, SET, STAGES
from regcascade.utils.append_csv import gather, parts_of, read_table

NamePair = tuple[str, str]  # fixed, moving


def read_pairs(folder: Path) -> pd.DataFrame:
    """Read `pairs.csv` of a folder, exactly as it was written."""
    return read_table(folder / PAIRS, [*KEY, SET, FAILED])


def read_stages(folder: Path) -> pd.DataFrame:
    """Read `stages.csv` of a folder."""
    return read_table(folder / STAGES, [*KEY, "stage"])


def pairs_done(folder: Path) -> set[NamePair]:
    """List the pairs in `pairs.csv` of a folder."""
    rows = read_pairs(folder)
    return set(zip(rows["fixed"], rows["moving"], strict=True))


def clear_tables(folder: Path) -> None:
    """Remove the tables of an earlier evaluation and their parts."""
    for path in (folder / PAIRS, folder / STAGES):
        for left in (path, *parts_of(path)):
            left.unlink(missing_ok=True)


def gather_rows(folder: Path, tables: Sequence[str], pairs: Sequence[NamePair]) -> None:
    """Gather the rows of all processes into the tables, in the order of the pairs; stages need their pair's row."""
    order = {pair: number for number, pair in enumerate(pairs)}

    def place(row: Mapping[str, str]) -> tuple[int, ...] | None:
        number = order.get((row["fixed"], row["moving"]))
        return None if number is None else (number, int(row.get("step", 0)))

    gather(folder / PAIRS, place)
    if STAGES in tables:
        done = pairs_done(folder)
        gather(folder / STAGES, lambda row: place(row) if (row["fixed"], row["moving"]) in done else None)


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Compute mean and sample standard deviation over pairs of every measure; None if undefined.

    >>> summarise(pd.DataFrame({"fixed": ["a"], "dice_mean": [0.5]}))
    {'dice_mean': {'mean': 0.5, 'std': None}}
    """
    numbers = rows.select_dtypes("number")
    both = pd.DataFrame({"mean": numbers.mean(), "std": numbers.std(ddof=1)}).astype(object)
    return both.where(both.notna(), None).to_dict("index")


def failures(rows: pd.DataFrame) -> int:
    """Count the pairs that failed."""
    return int((rows[FAILED] != "").sum()) if FAILED in rows else 0
