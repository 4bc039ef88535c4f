"""Read evaluated runs from their folders, and check that they may be compared."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from regcascade.evaluation.layout import BEFORE, EVALUATE, FAILED, KEY, PAIRS, SET, SUMMARY, read_summary
from regcascade.report.runs.find import check_finished, first_few
from regcascade.report.runs.names import What, run_names, what_was_evaluated

INITIAL = "Before registration"


class NotComparableError(ValueError):
    """Runs are of different pairs, labels or scans."""


class Run(NamedTuple):
    """What an evaluation measured.

    Attributes:
        name: of the row in a table.
        pairs: a row per pair, indexed by (fixed, moving), a column of floats per measure; NaN where a pair lacks it.
        parameters: number of them in the model, NaN where there is none.
        paper_size_mib: 12 bytes a parameter, as DR-Net counts, in MiB.
        label_interpolation: how labels were warped, `nearest` or `linear`.
        failures: number of pairs that failed.
        about: more cells of the row in a table, by their headings.
        what: it is of.
    """

    name: str
    pairs: pd.DataFrame
    parameters: float
    paper_size_mib: float
    label_interpolation: str
    failures: int = 0
    about: Mapping[str, str] = MappingProxyType({})
    what: What = What()


def read_runs(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Run]:
    """Read runs under given names or `run_names`; ValueError if they cannot be read or may not be compared."""
    return aligned(named_runs(folders, names))


def named_runs(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Run]:
    """Read runs under given names or `run_names`, whether or not they may be compared."""
    runs = [read_run(folder) for folder in folders]
    names = names or run_names([run.what for run in runs], folders)
    check_names(names, folders)
    return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]


def check_names(names: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ValueError unless names can be those of the rows of one table, one for each run."""
    if len(names) != len(folders):
        listed = ", ".join(map(str, folders))
        raise ValueError(f"--names gives {len(names)} names for {len(folders)} runs: {listed}. Give one for each.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or INITIAL in names or not all(name.strip() for name in names):
        wrong = f"{first_few(twice)} would name several rows" if twice else f"A row cannot be called {INITIAL!r} or ''"
        raise ValueError(f"{wrong}. Name each of the {len(names)} runs with --names.")


def read_run(folder: Path, name: str = "") -> Run:
    """Read `pairs.csv` and `summary.json` of a run folder.

    Raises:
        ValueError: if one is missing or damaged, a pair is there twice, or if they are not of the same evaluation.
    """
    check_finished(folder)
    pairs, summary = _read_pairs(folder / PAIRS), read_summary(folder)
    if summary["pairs"] != len(pairs):
        raise ValueError(f"{folder}: {PAIRS} has {len(pairs)} pairs and {SUMMARY} {summary['pairs']}. {EVALUATE}")
    for column, of_measure in summary["measures"].items():
        mean = of_measure.get("mean") if isinstance(of_measure, dict) else None
        read = pairs[column].mean() if column in pairs else math.nan
        if isinstance(mean, int | float) and not np.isclose(mean, read, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"{folder}: {PAIRS} and {SUMMARY} are not of the same evaluation, as the mean of {column} is "
                f"{read:.6g} in one and {mean:.6g} in the other. {EVALUATE}"
            )
    sizes = [summary.get(key) for key in ("parameters", "paper_size_mib")]
    parameters, paper_size = (float(size) if isinstance(size, int | float) else math.nan for size in sizes)
    labels, failures = str(summary.get("label_interpolation", "nearest")), int(summary.get("failures", 0))
    return Run(name, pairs, parameters, paper_size, labels, failures, what=what_was_evaluated(folder, summary))


def before_registration(run: Run) -> Run:
    """Make a row of the measures before registration; a run without columns `..._before` is a ValueError."""
    columns = {column: column.removesuffix(BEFORE) for column in run.pairs if column.endswith(BEFORE)}
    if not columns:
        raise ValueError(f"--initial needs columns such as dice_mean{BEFORE}, which {PAIRS} of {run.name} lacks.")
    measures = run.pairs[list(columns)].rename(columns=columns)
    return run._replace(name=INITIAL, pairs=measures, parameters=math.nan, paper_size_mib=math.nan, failures=0)


def label_columns(pairs: pd.DataFrame) -> list[str]:
    """List the columns of the Dice of single labels."""
    return [c for c in pairs if c.startswith("dice_") and c != "dice_mean" and not c.endswith(BEFORE)]


def aligned(runs: Sequence[Run]) -> list[Run]:
    """Put the pairs of runs in the order of the first one's, or raise NotComparableError."""
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    return [run._replace(pairs=run.pairs.loc[runs[0].pairs.index]) for run in runs]


def _check_comparable(first: Run, other: Run) -> None:
    both = f"{first.name} and {other.name} were evaluated on different"
    if differ := _differing(first, other, _listed(first.pairs.index), _listed(other.pairs.index)):
        raise NotComparableError(
            f"{both} pairs: {differ}, {len(first.pairs.index.intersection(other.pairs.index))} in both. Evaluate both "
            f"on one list, such as that of either: python evaluate.py checkpoint=FILE data.pairs=RUN/{PAIRS}."
        )
    labels = ([column.removeprefix("dice_") for column in label_columns(run.pairs)] for run in (first, other))
    if differ := _differing(first, other, *labels):
        raise NotComparableError(
            f"{both} labels: {differ}. Their mean Dice is not of the same structures; evaluate both with the same data "
            "options."
        )
    if first.label_interpolation != other.label_interpolation:
        raise NotComparableError(
            f"{first.name} was evaluated with labels={first.label_interpolation}, {other.name} with "
            f"labels={other.label_interpolation}, which changes Dice by itself. Evaluate both with the same."
        )
    of_scans = [column for column in first.pairs if column.endswith(BEFORE) and column in other.pairs]
    for column in of_scans:  # not of the model
        ours, theirs = first.pairs[column], other.pairs[column].loc[first.pairs.index]
        differs = ~np.isclose(ours, theirs, rtol=1e-3, atol=1e-4) & (ours.notna() & theirs.notna())
        if differs.any():
            pair = ours.index[int(np.flatnonzero(differs)[0])]
            raise NotComparableError(
                f"{both} scans of the same names: {column} differs in {int(differs.sum())} of {len(ours)} pairs, as in "
                f"{_listed([pair])[0]} ({ours[pair]:.4g} and {theirs[pair]:.4g}). Evaluate both with the same data "
                "options (set, size, preprocessing)."
            )


def _differing(first: Run, other: Run, ours: Sequence[str], theirs: Sequence[str]) -> str:
    """What only one of two runs has, such as `2 only in A (x, y)`; empty where both have the same."""
    parts = []
    for run, own, theirs_too in ((first, ours, set(theirs)), (other, theirs, set(ours))):
        if only := [one for one in own if one not in theirs_too]:
            parts.append(f"{len(only)} only in {run.name} ({first_few(only)})")
    return ", ".join(parts)


def _listed(pairs: Sequence[tuple[str, str]] | pd.Index) -> list[str]:
    return [f"{fixed} <- {moving}" for fixed, moving in pairs]


def _read_pairs(path: Path) -> pd.DataFrame:
    try:  # as text, so that a scan called NA keeps its name
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # those of pandas, and of the encoding, are ValueErrors
        raise ValueError(f"{path} cannot be read as a table: {str(error).strip()}. {EVALUATE}") from error
    if missing := [column for column in KEY if column not in table]:
        raise ValueError(f"{path} has no column {' and no '.join(missing)}. {EVALUATE}")
    if table.empty:
        raise ValueError(f"{path} has no pairs. {EVALUATE}")
    index = pd.MultiIndex.from_frame(table[KEY])
    twice = index[index.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{path} lists {len(twice)} pairs more than once: {first_few(_listed(twice))}. They would count double; "
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
    if not bad.any():
        return numbers
    if bad.equals(~empty):
        return None
    row = int(np.flatnonzero(bad)[0])
    raise ValueError(f"{path}: {cells.name} of pair {row + 1} is {cells[row]!r}, no finite number. {EVALUATE}")
