"""A table of one of the papers: what it prints, and beside it the runs found for its rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from regcascade.report.paper.deviations import Compose, changed_options, evaluated_otherwise, trained_otherwise
from regcascade.report.paper.experiments import COST, SETS, Row, columns_of, printed_number
from regcascade.report.paper.runs import Cell, Cells, Found
from regcascade.report.tables.markup import latex, markdown, write_texts
from regcascade.report.tables.measure_names import NONE, heading, mean_and_std

AS_PRINTED = "as the paper"
_COSTS = {"seconds_gpu": ("Seconds, GPU", 2), "seconds_cpu": ("Seconds, CPU", 1), "paper_size_mib": ("Size [MiB]", 1)}


class Result(NamedTuple):
    """What one run gives for a row."""

    folder: Path  # of the training, or of the evaluation of a method without one
    settings: str  # how it differs from the paper
    cells: Cells


@dataclass(frozen=True)
class Line:
    """A line of the table: a row as each of its experiments gives it, and a result of each that has a run."""

    parts: Sequence[Row]
    results: Sequence[Result] = ()

    @property
    def printed(self) -> dict[tuple[str, str], str]:
        """What the paper prints, by set and measure."""
        return {(s, m): text for part in self.parts for s, of in part.printed.items() for m, text in of.items()}

    @property
    def cells(self) -> Cells:
        """What was measured; where several results have a cell, by the first."""
        cells: Cells = {}
        for column, cell in (found for result in self.results for found in result.cells.items()):
            cells.setdefault(column, cell)
        return cells


def results(row: Row, found: Found, compose: Compose) -> list[Result]:
    """Collect what each run gives for a row; nothing for a training that was not evaluated with the row's r.

    `compose` gives the config of an entry point with overrides, from which a run may differ.
    """
    if row.method is not None:
        return list(_of_method(row, found, compose))
    given = []
    for training in found.trainings:
        if training.experiment != row.experiment:
            continue
        digests = {one.summary.get("checkpoint_sha256") for one in training.own} | training.hashes
        of_it = [one for one in found.evaluations if one.summary.get("checkpoint_sha256") in digests - {None}]
        fitting = [evaluation for evaluation in [*training.own, *of_it] if evaluation.has_r(row.r)]
        if not fitting:
            continue
        fitting.sort(key=lambda evaluation: (int(evaluation.summary["pairs"]), evaluation.is_of_last))
        cells: Cells = {}
        for evaluation in fitting:  # the last, of most pairs, wins where several have a set
            cells |= evaluation.cells(row)
        settings = [*trained_otherwise(training, compose), *evaluated_otherwise(fitting[-1], row)]
        given.append(Result(training.folder, ", ".join(settings), cells))
    return given


def _of_method(row: Row, found: Found, compose: Compose) -> Iterator[Result]:
    meant = compose("evaluate", [f"method={row.method}", f"data={row.data}"])
    for evaluation in found.evaluations:
        method, ours, theirs = evaluation.summary.get("method"), evaluation.data, meant["data"]
        if not isinstance(method, Mapping) or method.get("name") != row.method:
            continue
        paired = [(data.get("pairing") == "atlas", data.get("atlas")) for data in (ours, theirs)]
        if paired[0] != paired[1]:  # no atlas, or another one
            continue
        settings = list(changed_options("method", evaluation.config.get("method"), meant["method"]))
        if ours.get("name") != theirs["name"]:
            settings.insert(0, f"data={ours.get('name')}")
        settings += evaluated_otherwise(evaluation, row)
        yield Result(evaluation.folder, ", ".join(settings), evaluation.cells(row))


def lines_of(rows: Sequence[Sequence[Row]], found: Found, compose: Compose) -> list[Line]:
    """Make the lines of a table: of each row as many as one of its experiments has runs, and at least one."""
    lines = []
    for parts in rows:
        given = list(zip_longest(*(results(part, found, compose) for part in parts))) or [()]
        lines += [Line(parts, [result for result in together if result is not None]) for together in given]
    return lines


def printed_table(rows: Sequence[Sequence[Row]]) -> pd.DataFrame:
    """Tabulate as text what a paper prints, with the commands that run each row."""
    columns = columns_of(rows)
    shown = []
    for parts in rows:
        line = Line(parts)
        cells = {"Row": parts[0].name} | {_heading(*column): line.printed.get(column, NONE) for column in columns}
        shown.append(cells | {"Command": "; ".join(dict.fromkeys(part.command for part in parts))})
    return pd.DataFrame(shown)


def shown_table(lines: Sequence[Line]) -> pd.DataFrame:
    """Tabulate as text: what is printed, which run, how it differs, and its measures of the same name."""
    columns, measured = _columns(lines)
    shown = []
    for number, line in enumerate(lines):
        again = number > 0 and lines[number - 1].parts is line.parts
        cells = {"Row": line.parts[0].name}
        cells |= {_heading(*column): "" if again else line.printed.get(column, NONE) for column in columns}
        cells["Run"] = "; ".join("/".join(result.folder.parts[-2:]) for result in line.results) or NONE
        settings = dict.fromkeys(result.settings or AS_PRINTED for result in line.results)
        cells["Settings"] = "; ".join(settings) or NONE
        pairs = [f"{SETS.get(s, s)} {cell.pairs:,}" for (s, measure), cell in line.cells.items() if measure == "cc"]
        cells["Pairs"] = ", ".join(pairs) or NONE
        cells |= {f"{_heading(*column)}, run": _text(line.cells.get(column), column[1]) for column in measured}
        shown.append(cells)
    return pd.DataFrame(shown)


def numbers(lines: Sequence[Line]) -> pd.DataFrame:
    """Tabulate in full precision `_printed_mean`, `_printed_std`, `_mean`, `_std`, `_pairs` of each set and measure."""
    columns, measured = _columns(lines)
    rows = []
    for line in lines:
        first = line.parts[0]
        row: dict[str, object] = {"table": first.table, "row": first.row, "name": first.name, "r": first.r}
        row["experiments"] = " ".join(part.experiment for part in line.parts)
        row["runs"] = " ".join(str(result.folder) for result in line.results)
        row["settings"] = "; ".join(result.settings for result in line.results)
        for s, m in columns:
            mean, std = printed_number(line.printed[s, m]) if (s, m) in line.printed else (None, None)
            row |= {f"{s}_{m}_printed_mean": mean, f"{s}_{m}_printed_std": std}
        for s, m in measured:
            cell = line.cells.get((s, m))
            row |= {f"{s}_{m}_{field}": cell and getattr(cell, field) for field in Cell._fields}
        rows.append(row)
    return pd.DataFrame(rows)


def write_table(name: str, title: str, shown: pd.DataFrame, full: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a table as .md, .tex and .csv, each whole."""
    stem = name.replace("/", "-")
    texts = {
        f"{stem}.md": f"{title}\n\n{markdown(shown)}",
        f"{stem}.tex": f"% {title}\n{latex(shown)}",
        f"{stem}.csv": full.to_csv(index=False),
    }
    return write_texts(texts, folder)


def _columns(lines: Sequence[Line]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The columns that are printed, and those of the same measures that a run has, of whatever set."""
    columns = columns_of([list(line.parts) for line in lines])
    measures = dict.fromkeys(measure for _, measure in columns)
    sets = dict.fromkeys([*(name for name, _ in columns), *(name for line in lines for name, _ in line.cells)])
    has = {cell for line in lines for cell in line.cells}
    return columns, [(name, measure) for name in sets for measure in measures if (name, measure) in has]


def _heading(name: str, measure: str) -> str:
    if name == COST:
        return _COSTS[measure][0]
    return f"{SETS.get(name, name)} {heading(measure)[0]}"


def _text(cell: Cell | None, measure: str) -> str:
    if cell is None:
        return NONE
    decimals = _COSTS[measure][1] if measure in _COSTS else heading(measure)[1]
    return mean_and_std(cell.mean, math.nan if cell.std is None else cell.std, decimals)
