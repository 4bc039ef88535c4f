"""The tables that an evaluation writes: a row per pair, a row per stage of a pair, and their summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from regcascade.evaluation.layout import FAILED, KEY, PAIRS, SET, STAGES
from regcascade.utils.append_csv import gather, parts_of, read_table

NamePair = tuple[str, str]  # fixed, moving


def read_pairs(folder: Path) -> pd.DataFrame:
    """The rows of `pairs.csv` in a folder, exactly as they were measured."""
    return read_table(folder / PAIRS, [*KEY, SET, FAILED])


def read_stages(folder: Path) -> pd.DataFrame:
    """The rows of `stages.csv` in a folder."""
    return read_table(folder / STAGES, [*KEY, "stage"])


def pairs_done(folder: Path) -> set[NamePair]:
    """The pairs whose rows are in `pairs.csv` of a folder."""
    rows = read_pairs(folder)
    return set(zip(rows["fixed"], rows["moving"], strict=True))


def clear_tables(folder: Path) -> None:
    """Remove the tables of an earlier evaluation, and what its processes left of them."""
    for path in (folder / PAIRS, folder / STAGES):
        for left in (path, *parts_of(path)):
            left.unlink(missing_ok=True)


def gather_rows(folder: Path, tables: Sequence[str], pairs: Sequence[NamePair]) -> None:
    """Gather the rows of all processes into the tables, in the order of the pairs.

    Rows of stages are kept where their pair is done.

    Args:
        folder: of the evaluation.
        tables: `PAIRS`, and `STAGES` if there are to be any.
        pairs: of the evaluation, in order.
    """
    order = {pair: number for number, pair in enumerate(pairs)}

    def place_of_pair(row: Mapping[str, str]) -> tuple[int, ...] | None:
        number = order.get((row["fixed"], row["moving"]))
        return None if number is None else (number,)

    gather(folder / PAIRS, place_of_pair)
    if STAGES not in tables:
        return
    done = pairs_done(folder)

    def place_of_step(row: Mapping[str, str]) -> tuple[int, ...] | None:
        pair = row["fixed"], row["moving"]
        return (order[pair], int(row["step"])) if pair in done else None

    gather(folder / STAGES, place_of_step)


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation over pairs of every measure; None where there is none.

    >>> summarise(pd.DataFrame({"fixed": ["a"], "dice_mean": [0.5]}))
    {'dice_mean': {'mean': 0.5, 'std': None}}
    """
    numbers = rows.select_dtypes("number")
    both = pd.DataFrame({"mean": numbers.mean(), "std": numbers.std(ddof=1)}).astype(object)
    return both.where(both.notna(), None).to_dict("index")


def failures(rows: pd.DataFrame) -> int:
    """How many pairs have failed."""
    return int((rows[FAILED] != "").sum()) if FAILED in rows else 0
