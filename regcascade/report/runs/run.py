"""Evaluated runs: reading what an evaluation wrote to their folders, and whether they may be compared."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regcascade.evaluation.layout import BEFORE
from regcascade.evaluation.run import FAILED, SET
from regcascade.report.runs.find import AGAIN, PAIRS, SUMMARY, check_finished, first_few, row_names

KEY = ["fixed", "moving"]
INITIAL = "Before registration"


class NotComparableError(ValueError):
    """Runs of different pairs, labels or scans."""


class Run(NamedTuple):
    """What an evaluation measured.

    Attributes:
        name: of the row in a table.
        pairs: a row per pair, indexed by (fixed, moving), a column of floats per measure; NaN where a pair has it not.
        parameters: of the model, NaN where there is none.
        paper_size_mib: 12 bytes a parameter, as the second paper counts, in MiB.
        label_interpolation: how labels were warped, `nearest` unless the summary says otherwise.
        failures: how many of the pairs have failed.
        about: what a table says of the run beside its name, texts by their headings.
    """

    name: str
    pairs: pd.DataFrame
    parameters: float
    paper_size_mib: float
    label_interpolation: str
    failures: int = 0
    about: Mapping[str, str] = MappingProxyType({})


def read_runs(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Run]:
    """Read runs, under given names or `row_names`, and check that they may be compared.

    Raises:
        ValueError: if a file is damaged, the names do not fit, or the runs are of different pairs, labels or scans.
    """
    names = list(names) or row_names(folders)
    check_names(names, folders)
    return aligned([read_run(folder, name) for folder, name in zip(folders, names, strict=True)])


def check_names(names: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ValueError unless names can be those of the rows of one table, one for each run."""
    if len(names) != len(folders):
        listed = ", ".join(map(str, folders))
        raise ValueError(f"--names gives {len(names)} names for {len(folders)} runs: {listed}. Give one for each.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or INITIAL in names or not all(name.strip() for name in names):
        wrong = f"{first_few(twice)} would name several rows" if twice else f"A row cannot be called {INITIAL!r} or ''"
        raise ValueError(f"{wrong}. Name each of the {len(names)} runs with --names.")


def aligned(runs: Sequence[Run]) -> list[Run]:
    """Runs with their pairs in the order of the first one's.

    Raises:
        NotComparableError: if they are of different pairs, labels or scans.
    """
    for run in runs[1:]:
        _check_same_pairs(runs[0], run)
        _check_same_labels(runs[0], run)
        _check_same_scans(runs[0], run)
    return [run._replace(pairs=run.pairs.loc[runs[0].pairs.index]) for run in runs]


def read_run(folder: Path, name: str) -> Run:
    """Read `pairs.csv` and `summary.json` of a run folder.

    Raises:
        ValueError: if one is missing or damaged, lists a pair twice, or if they are not of the same evaluation.
    """
    check_finished(folder)
    pairs, summary = _read_pairs(folder / PAIRS), _read_summary(folder / SUMMARY)
    if summary.get("pairs") != len(pairs):
        raise ValueError(f"{folder}: {PAIRS} has {len(pairs)} pairs and {SUMMARY} {summary.get('pairs')}. {AGAIN}")
    for column, of_measure in summary["measures"].items():
        mean = of_measure.get("mean") if isinstance(of_measure, dict) else None
        read = pairs[column].mean() if column in pairs else math.nan
        if isinstance(mean, int | float) and not np.isclose(mean, read, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"{folder}: {PAIRS} and {SUMMARY} are not of the same evaluation, as the mean of {column} is "
                f"{read:.6g} in one and {mean:.6g} in the other. {AGAIN}"
            )
    sizes = [summary.get(key) for key in ("parameters", "paper_size_mib")]
    parameters, paper_size = (float(size) if isinstance(size, int | float) else math.nan for size in sizes)
    failures = int(summary.get("failures", 0))
    return Run(name, pairs, parameters, paper_size, str(summary.get("label_interpolation", "nearest")), failures)


def before_registration(run: Run) -> Run:
    """A row of the measures before registration, from the columns with the suffix `_before`.

    Raises:
        ValueError: if the run has none.
    """
    columns = {column: column.removesuffix(BEFORE) for column in run.pairs if column.endswith(BEFORE)}
    if not columns:
        raise ValueError(f"--initial needs columns such as dice_mean{BEFORE}, which {PAIRS} of {run.name} lacks.")
    measures = run.pairs[list(columns)].rename(columns=columns)
    return run._replace(name=INITIAL, pairs=measures, parameters=math.nan, paper_size_mib=math.nan, failures=0)


def label_columns(run: Run) -> list[str]:
    """The columns of the Dice of single labels."""
    return [c for c in run.pairs if c.startswith("dice_") and c != "dice_mean" and not c.endswith(BEFORE)]


def _read_pairs(path: Path) -> pd.DataFrame:
    try:  # as text, so that a scan called NA keeps its name
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # those of pandas, and of the encoding, are ValueErrors
        raise ValueError(f"{path} cannot be read as a table: {str(error).strip()}. {AGAIN}") from error
    if missing := [column for column in KEY if column not in table]:
        raise ValueError(f"{path} has no column {' and no '.join(missing)}. {AGAIN}")
    if table.empty:
        raise ValueError(f"{path} has no pairs. {AGAIN}")
    index = pd.MultiIndex.from_frame(table[KEY])
    twice = index[index.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{path} lists {len(twice)} pairs more than once: {_pairs_listed(twice)}. They would count double; "
            "evaluate on a list that names each pair once (data.pairs=FILE)."
        )
    measures = {column: _numbers(table[column], path) for column in table if column not in (*KEY, SET, FAILED)}
    known = {column: values for column, values in measures.items() if values is not None}
    return pd.DataFrame(known, index=table.index).set_index(index)


def _numbers(cells: pd.Series, path: Path) -> pd.Series | None:
    """A column as floats, empty cells as NaN; None for a column of text."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    empty = cells.str.strip().str.lower().isin(["", "nan"])
    bad = ~empty & ~np.isfinite(numbers)
    if bad.any() and bad.sum() == (~empty).sum():
        return None
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{path}: {cells.name} of pair {row + 1} is {cells[row]!r}, no finite number. {AGAIN}")
    return numbers


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}. {AGAIN}") from error
    if not (isinstance(summary, dict) and isinstance(summary.get("measures"), dict)):
        raise ValueError(f"{path} is no summary of an evaluation, as it holds no measures. {AGAIN}")
    return summary


def _check_same_pairs(first: Run, other: Run) -> None:
    lacking = first.pairs.index.difference(other.pairs.index)
    added = other.pairs.index.difference(first.pairs.index)
    if len(lacking) or len(added):
        parts = [
            f"{len(only)} only in {run.name} ({_pairs_listed(only)})"
            for run, only in ((first, lacking), (other, added))
            if len(only)
        ]
        raise NotComparableError(
            f"{first.name} and {other.name} were evaluated on different pairs: {', '.join(parts)}, "
            f"{len(first.pairs.index.intersection(other.pairs.index))} in both. Evaluate both on one list, such as "
            f"that of either: python evaluate.py checkpoint=FILE data.pairs=RUN/{PAIRS}."
        )


def _check_same_labels(first: Run, other: Run) -> None:
    ours, theirs = label_columns(first), label_columns(other)
    parts = [
        f"{len(only)} only in {run.name} ({first_few([column.removeprefix('dice_') for column in only])})"
        for run, only in (
            (first, [column for column in ours if column not in theirs]),
            (other, [column for column in theirs if column not in ours]),
        )
        if only
    ]
    if parts:
        raise NotComparableError(
            f"{first.name} and {other.name} were evaluated on different labels: {', '.join(parts)}. Their mean Dice is "
            "not of the same structures; evaluate both with the same data options."
        )
    if first.label_interpolation != other.label_interpolation:
        raise NotComparableError(
            f"{first.name} was evaluated with labels={first.label_interpolation}, {other.name} with "
            f"labels={other.label_interpolation}, which changes Dice by itself. Evaluate both with the same."
        )


def _check_same_scans(first: Run, other: Run) -> None:
    """Before registration all models see the same, unless the scans were made ready differently."""
    for column in first.pairs.columns.intersection(other.pairs.columns):
        if not column.endswith(BEFORE):
            continue
        ours, theirs = first.pairs[column], other.pairs[column].loc[first.pairs.index]
        differ = ~np.isclose(ours, theirs, rtol=1e-3, atol=1e-4) & (ours.notna() & theirs.notna())
        if differ.any():
            pair = ours.index[int(np.flatnonzero(differ)[0])]
            raise NotComparableError(
                f"{first.name} and {other.name} were evaluated on different scans of the same names: {column} differs "
                f"in {int(differ.sum())} of {len(ours)} pairs, as in {_pairs_listed([pair])} ({ours[pair]:.4g} and "
                f"{theirs[pair]:.4g}). Evaluate both with the same data options (set, size, preprocessing)."
            )


def _pairs_listed(pairs: Sequence[tuple[str, str]] | pd.Index) -> str:
    return first_few([f"{fixed} <- {moving}" for fixed, moving in pairs])
