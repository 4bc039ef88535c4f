"""The tables that an evaluation writes, of one or several processes: a row per pair, a row per stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from regcascade.evaluation.layout import FAILED, PAIRS, SET, STAGES
from regcascade.evaluation.processes import Share
from regcascade.utils.append_csv import GrowingTable, gather, part_of, parts_of, read_table

NamePair = tuple[str, str]  # fixed, moving


def read_pairs(folder: Path) -> pd.DataFrame:
    """The rows of `pairs.csv` in a folder, exactly as they were measured."""
    return read_table(folder / PAIRS, ["fixed", "moving", SET, FAILED])


def pairs_done(folder: Path) -> set[NamePair]:
    """The pairs whose rows are in `pairs.csv` of a folder."""
    rows = read_pairs(folder)
    return set(zip(rows["fixed"], rows["moving"], strict=True))


def begin(folder: Path, tables: Sequence[str], pairs: Sequence[NamePair], resume: bool) -> None:
    """Make the tables of a folder ready to grow: empty, or with all that was finished before.

    Args:
        folder: of the evaluation.
        tables: `PAIRS`, and `STAGES` if there are to be any.
        pairs: of the evaluation, in order.
        resume: keep what is there, of whatever processes.
    """
    for path in (folder / name for name in (PAIRS, STAGES)):
        if not resume:
            for left in (path, *parts_of(path)):
                left.unlink(missing_ok=True)
    gather_rows(folder, tables, pairs)


def gather_rows(folder: Path, tables: Sequence[str], pairs: Sequence[NamePair]) -> None:
    """Gather the rows of all processes in the order of the pairs, those of stages only where the pair is done.

    Arguments are those of `begin`.
    """
    order = {pair: number for number, pair in enumerate(pairs)}

    def number(row: Mapping[str, str]) -> int | None:
        return order.get((row["fixed"], row["moving"]))

    gather(folder / PAIRS, lambda row: None if (place := number(row)) is None else (place,))
    if STAGES not in tables:
        return
    done = {order[pair] for pair in pairs_done(folder)}

    def place_of_step(row: Mapping[str, str]) -> tuple[int, ...] | None:
        place = number(row)
        return (place, int(row["step"])) if place is not None and place in done else None

    gather(folder / STAGES, place_of_step)


def growing_table(path: Path, share: Share) -> GrowingTable:
    """Where a process appends its rows: to the table itself if it is alone, else to a part of it."""
    return GrowingTable(path, fresh=False) if share.of == 1 else GrowingTable(part_of(path, share.rank), fresh=True)


def read_stages(folder: Path) -> pd.DataFrame:
    """The rows of `stages.csv` in a folder."""
    return read_table(folder / STAGES, ["fixed", "moving", "stage"])
