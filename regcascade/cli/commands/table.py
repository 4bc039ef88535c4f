"""`regcascade table`: show a table of the papers beside the runs that reproduce its rows."""

import argparse
from functools import cache

from rich.console import Console

from regcascade.cli.console import say
from regcascade.cli.run_folder import composed
from regcascade.report.paper.experiments import CONF, TABLES, read_rows, rows_of, title
from regcascade.report.paper.runs import Found, find
from regcascade.report.paper.table import lines_of, numbers, printed_table, shown_table, write_table
from regcascade.report.tables.markup import terminal_tables


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    console = Console()
    if options.list or options.table is None:
        say(*(f"{name:8} {title(name)}" for name in TABLES))
        return
    rows = read_rows()
    tables = list(TABLES) if options.table == "all" else [options.table]
    of_each = {name: rows_of(name, rows) for name in tables}
    configs = cache(lambda config, overrides: composed(CONF, config, overrides))
    found = find(options.runs) if options.runs else Found([], [])
    for name, of_table in of_each.items():
        lines = lines_of(of_table, found, lambda config, overrides: configs(config, tuple(overrides)))
        shown, full = shown_table(lines) if options.runs else printed_table(of_table), numbers(lines)
        for part in terminal_tables(shown, title(name), console.width):
            console.print(part)
            console.print()
        if options.out is not None:
            files = write_table(name, title(name), shown, full, options.out)
            say(f"Written: {', '.join(map(str, files))}.")
