"""Compare runs: a table as in the papers, and paired tests between any two rows."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console

from regcascade.evaluation.layout import BEFORE
from regcascade.report.runs.run import Run, label_columns
from regcascade.report.tables.markup import latex, markdown, print_tables, write_texts
from regcascade.report.tables.measure_names import KNOWN, NONE, heading, rounded, spread
from regcascade.report.tables.statistics import RESAMPLES, bootstrap_intervals, holm, subjects, t_test, wilcoxon_test

FEW_SCANS = 10
MOST_TESTED = 12  # rows of which any two are tested, where one of them is the best
_MOST_TESTS_PRINTED = 50
_COSTS = ("seconds", "peak_memory")  # shown but not tested: they tell of the machine as much as of the model


class Comparison(NamedTuple):
    """Rows beside each other.

    Attributes:
        runs: the rows, on the same pairs in the same order.
        measures: the columns of their pairs that count, in the order of the table.
        tests: a row per measure and two runs: `measure, first, second, pairs` (that have the measure in both),
            `difference` (mean of first minus second), `low` and `high` (95 % bootstrap interval), and the p-values
            `t_test, t_test_holm, wilcoxon, wilcoxon_holm`. Empty for a single run.
    """

    runs: list[Run]
    measures: list[str]
    tests: pd.DataFrame


def compare(runs: Sequence[Run], per_label: bool = False, best: int | None = None) -> Comparison:
    """Compare runs that `read_runs` found comparable.

    Args:
        runs: the rows.
        per_label: show and test the measures of single labels too.
        best: the row that the others are tested against where there are more than `MOST_TESTED`; by default any two
            rows are tested.
    """
    table = untested(runs, per_label)
    tested = [measure for measure in table.measures if not measure.startswith(_COSTS)]
    twos = list(itertools.combinations(range(len(runs)), 2))
    if best is not None and len(runs) > MOST_TESTED:
        twos = [two for two in twos if best in two]
    return table._replace(tests=_paired_tests(runs, tested, twos) if tested and twos else pd.DataFrame())


def untested(runs: Sequence[Run], per_label: bool = False) -> Comparison:
    """Make the table without tests, as of runs on different pairs."""
    measures, single, costs = columns_of(runs)
    return Comparison(list(runs), [*measures, *(single if per_label else []), *costs], pd.DataFrame())


def columns_of(runs: Sequence[Run]) -> tuple[list[str], list[str], list[str]]:
    """List the measures that any pair has: those of all labels together or of none, of single labels, and costs."""
    suffixes = tuple(column.removeprefix("dice") for run in runs for column in label_columns(run.pairs))  # _liver
    known = dict.fromkeys(column for run in runs for column in run.pairs.dropna(axis=1, how="all"))
    columns = [column for column in known if not column.endswith(BEFORE)]
    costs = [column for column in columns if column.startswith(_COSTS)]
    single = [column for column in columns if column.endswith(suffixes) and column not in KNOWN]
    return [column for column in columns if column not in (*costs, *single)], single, costs


def numbers(comparison: Comparison) -> pd.DataFrame:
    """Tabulate in full precision: a row per run; `_mean`, `_std` (sample, over pairs), `_pairs` of every measure."""
    rows = []
    for run in comparison.runs:
        row: dict[str, object] = {"name": run.name, **_about(run, comparison)}
        for measure in comparison.measures:
            values = values_of(run, measure)
            row |= {f"{measure}_mean": values.mean(), f"{measure}_std": values.std(ddof=1)}
            row[f"{measure}_pairs"] = values.count()
        row["failures"] = run.failures
        rows.append(row | {"parameters": run.parameters, "paper_size_mib": run.paper_size_mib})
    return pd.DataFrame(rows)


def shown_table(comparison: Comparison) -> pd.DataFrame:
    """Tabulate as text, as in the papers: mean (standard deviation), and how many pairs where not all have it.

    Where pairs have failed, a column says how many.
    """
    rows, failed = [], any(run.failures for run in comparison.runs)
    for run in comparison.runs:
        cells = {"Method": run.name, **_about(run, comparison)} | ({"Failed": str(run.failures)} if failed else {})
        for measure in comparison.measures:
            title, decimals = heading(measure)
            cells[title] = spread(values_of(run, measure), decimals)
        cells["Parameters [M]"] = rounded(run.parameters / 1e6, 2)
        cells["Paper size [MiB]"] = rounded(run.paper_size_mib, 1)
        rows.append(cells)
    return pd.DataFrame(rows)


def shown_tests(tests: pd.DataFrame) -> pd.DataFrame:
    """Write the tests as text."""
    rows = []
    for test in tests.itertuples(index=False):
        title, decimals = heading(test.measure)
        low, high = (rounded(end, decimals, "+") for end in (test.low, test.high))
        rows.append(
            {
                "Difference": f"{test.first} - {test.second}",
                "Measure": title,
                "Pairs": str(test.pairs),
                "Mean": rounded(test.difference, decimals, "+"),
                "95 % interval": NONE if math.isnan(test.low) else f"{low} to {high}",
                "t": _p_value(test.t_test),
                "t, Holm": _p_value(test.t_test_holm),
                "Wilcoxon": _p_value(test.wilcoxon),
                "W., Holm": _p_value(test.wilcoxon_holm),
            }
        )
    return pd.DataFrame(rows)


def by_measure(tests: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Write the tests of each measure as text, under its heading."""
    groups = tests.groupby("measure", sort=False) if len(tests) else ()
    return {heading(str(measure))[0]: shown_tests(part).drop(columns="Measure") for measure, part in groups}


def notes(comparison: Comparison) -> list[str]:
    """Say what a reader must know of the numbers, a sentence or two each."""
    pairs = comparison.runs[0].pairs
    if not all(run.pairs.index.equals(pairs.index) for run in comparison.runs):
        return ["Mean (standard deviation) over the pairs of each run, which are not the same for all."]
    fixed, moving = _scans(comparison.runs[0])
    lines = [
        f"Mean (standard deviation) over {len(pairs)} pairs of {len({*fixed, *moving})} scans; n: pairs that have the "
        "measure."
    ]
    if comparison.tests.empty:
        return lines
    lines += [
        "p-values of the paired t-test and Wilcoxon's signed-rank test, which take pairs as independent, each also "
        "after Holm's correction over all comparisons of the measure.",
        f"95 % bootstrap intervals of the mean difference, {RESAMPLES} resamples of scans: a pair weighs the product "
        "of how often its two scans were drawn.",
    ]
    drawn = len(np.union1d(*subjects(fixed, moving)))
    if drawn < FEW_SCANS:
        lines.append(f"Intervals from only {drawn} scans or subjects are too narrow.")
    return lines


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the table and, where they are few, all tests; else those of the first measure."""
    print_tables(shown_table(comparison), "", console)
    tests = comparison.tests
    if len(tests) > _MOST_TESTS_PRINTED:
        tests = tests[tests["measure"] == comparison.measures[0]]
    for name, part in by_measure(tests).items():
        print_tables(part, f"{name}: differences", console)
    for note in notes(comparison):
        console.print(note, style="dim", markup=False, highlight=False)
    if len(tests) < len(comparison.tests):
        console.print(f"{len(comparison.tests)} tests in all; the files have those of the other measures too.")


def write_comparison(comparison: Comparison, folder: Path, said: Sequence[str] = ()) -> list[Path]:
    """Write `table` and, of two runs or more, `tests` as .md, .tex and .csv (full precision), each whole.

    Paragraphs in `said` go below the table of Markdown. Tests of an earlier comparison in the folder are removed.
    """
    table, lines = shown_table(comparison), notes(comparison)
    texts = {
        "table.md": markdown(table) + "".join(f"\n{line}\n" for line in (lines[0], *said)),
        "table.tex": f"% {lines[0]}\n{latex(table)}",
        "table.csv": numbers(comparison).to_csv(index=False),
    }
    if not comparison.tests.empty:
        shown = shown_tests(comparison.tests)
        texts["tests.md"] = markdown(shown) + "".join(f"\n{line}\n" for line in lines[1:])
        texts["tests.tex"] = "".join(f"% {line}\n" for line in lines[1:]) + latex(shown)
        texts["tests.csv"] = comparison.tests.to_csv(index=False)
    files = write_texts(texts, folder)
    for path in {folder / f"tests.{ending}" for ending in ("md", "tex", "csv")} - set(files):
        path.unlink(missing_ok=True)
    return files


def values_of(run: Run, measure: str) -> pd.Series:
    """Get a measure of all pairs of a run; NaN where a pair, or the run, lacks it."""
    return run.pairs.reindex(columns=[measure])[measure].astype(float)


def _paired_tests(runs: Sequence[Run], measures: Sequence[str], twos: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """The rows of `Comparison.tests`: every two runs in every measure, over the pairs that have it in both.

    The t-test (as in the papers) and Wilcoxon's signed-rank test take pairs as independent, which pairs with a scan
    in common are not: their p-values are then too small. The bootstrap interval draws scans instead. Holm's correction
    is over all comparisons of a measure, for each test by itself.
    """
    keys = [(measure, *two) for measure in measures for two in twos]
    differences = np.stack([values_of(runs[a], m) - values_of(runs[b], m) for m, a, b in keys], axis=1)
    known = [column[np.isfinite(column)] for column in differences.T]
    names = [(measure, runs[a].name, runs[b].name) for measure, a, b in keys]
    tests = pd.DataFrame(names, columns=["measure", "first", "second"])
    tests["pairs"] = [len(values) for values in known]
    tests["difference"] = [values.mean() if len(values) else math.nan for values in known]
    tests[["low", "high"]] = bootstrap_intervals(differences, *_scans(runs[0]))
    for name, test in (("t_test", t_test), ("wilcoxon", wilcoxon_test)):
        tests[name] = [test(values) for values in known]
        corrected = tests.groupby("measure", sort=False)[name].transform(lambda p: holm(p.to_numpy()))
        tests[f"{name}_holm"] = corrected
    return tests[tests["pairs"] > 0].reset_index(drop=True)


def _scans(run: Run) -> tuple[list[str], list[str]]:
    """The names of the fixed and of the moving scan of each pair."""
    return list(run.pairs.index.get_level_values(0)), list(run.pairs.index.get_level_values(1))


def _about(run: Run, comparison: Comparison) -> dict[str, str]:
    headings = dict.fromkeys(heading for other in comparison.runs for heading in other.about)
    return {heading: run.about.get(heading, "") for heading in headings}


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else rounded(p, 3)
