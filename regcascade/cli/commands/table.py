"""`regcascade table`: the papers' tables, and the runs that reproduce their rows beside what they print."""

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from regcascade.cli.commands.arguments import Commands
from regcascade.cli.run_folder import composed
from regcascade.report.paper.experiments import CONF, TABLES, Row, read_rows, rows_of, title
from regcascade.report.paper.runs import Found, find
from regcascade.report.paper.table import lines_of, numbers, printed_table, shown_table, write_table
from regcascade.report.tables.markup import terminal_tables

ALL = "all"


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    table = commands.add_parser(
        "table",
        help="assemble a table of the papers from runs, beside what they print",
        description="Show a table of the papers with the command of every row; or, with --runs, what the runs found "
        "there give for it beside the printed numbers. A training is of a row by experiment=..., an evaluation by the "
        "checkpoint it is of, or by its method. What a run has otherwise than the paper stands beside it.",
        epilog="Examples: regcascade table rcn/2; regcascade table drnet/5 --runs runs evaluations --out tables.",
    )
    table.add_argument("table", nargs="?", help=f"{', '.join(TABLES)}, or {ALL}")
    table.add_argument("--list", action="store_true", help="name the tables")
    table.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders to search, such as runs and evaluations",
    )
    table.add_argument("--out", type=Path, help="a folder to write Markdown, LaTeX and CSV to")
    table.set_defaults(run=_table)


def _table(options: argparse.Namespace) -> None:
    console = Console()
    if options.list or options.table is None:
        for name in TABLES:
            console.print(f"{name:8} {title(name)}", markup=False, highlight=False)
        return
    rows = read_rows()
    tables = list(TABLES) if options.table == ALL else [options.table]
    of_each = {name: rows_of(name, rows) for name in tables}
    found = find(options.runs) if options.runs else None
    for name, of_table in of_each.items():
        shown, full = _assembled(of_table, found)
        for part in terminal_tables(shown, title(name), console.width):
            console.print(part)
            console.print()
        if options.out is not None:
            files = write_table(name, title(name), shown, full, options.out)
            console.print(f"Written: {', '.join(map(str, files))}.", markup=False, soft_wrap=True)


def _assembled(rows: Sequence[Sequence[Row]], found: Found | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table as text and in full precision; as printed only where no runs are asked for."""
    if found is None:
        return printed_table(rows), numbers(lines_of(rows, Found([], []), _compose))
    lines = lines_of(rows, found, _compose)
    return shown_table(lines), numbers(lines)


def _compose(name: str, overrides: Sequence[str]) -> Mapping[str, Any]:
    return _composed(name, tuple(overrides))


@cache
def _composed(name: str, overrides: tuple[str, ...]) -> Mapping[str, Any]:
    return composed(CONF, name, overrides)
