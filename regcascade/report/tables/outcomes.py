"""What became of the scans that `regcascade prepare` was given, as a table for the terminal."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from regcascade.data.preprocessing.prepare import DONE, EXCLUDED, FAILED, KEPT, Outcome
from regcascade.report.tables.markup import rich_table


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Tabulate how many scans became what, with the reason for each that failed."""
    table = rich_table(f"{len(outcomes)} scans")
    table.add_column("outcome")
    table.add_column("scans", justify="right")
    table.add_column("which and why", overflow="fold")
    for outcome in (DONE, KEPT, EXCLUDED, FAILED):
        if those := [one for one in outcomes if one.outcome == outcome]:
            reasons = [f"{one.name}: {one.reason}" for one in those if outcome == FAILED]
            table.add_row(outcome, str(len(those)), escape("\n".join(reasons)))
    return table
