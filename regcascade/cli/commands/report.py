"""`regcascade report`: evaluated runs as one HTML page."""

import argparse
from pathlib import Path

from rich.console import Console

from regcascade.cli.commands.arguments import Commands
from regcascade.report.html.page import WORST, write_report
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.run import read_runs
from regcascade.utils.registry import import_user_modules


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    report = commands.add_parser(
        "report",
        help="write evaluated runs as one self-contained HTML page",
        description="Write one HTML page of evaluated runs that needs nothing else: the table and tests of `regcascade "
        "compare`, the charts of `regcascade figures`, the worst pairs with pictures from the runs' checkpoints, "
        "configuration, versions, commits and hashes. The runs must be of the same pairs, labels and scans.",
        epilog="Examples: regcascade report runs/2026-01-31/12-00-00 --out report.html; regcascade report A B --names "
        "VM DR-Net --out liver.html --worst 5.",
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="as in `regcascade compare`")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write: report.html")
    report.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the runs; the folders' by default")
    report.add_argument("--worst", type=int, default=WORST, metavar="K", help=f"show the K worst pairs ({WORST})")
    report.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    if options.worst < 0:
        raise ValueError(f"--worst {options.worst} must be 0 or more.")
    if options.out.is_dir():  # before any work
        raise ValueError(f"--out {options.out} is a folder; name the file to write: {options.out / 'report.html'}.")
    import_user_modules(options.imports)
    folders, unfinished = find_runs(options.runs)
    runs = read_runs(folders, options.names)
    left_out = [f"{folder} has no results (yet)." for folder in unfinished]
    with Console(stderr=True).status("Drawing"):
        missing = write_report(folders, runs, options.out, options.worst, left_out)
    console = Console()
    for sentence in missing:
        console.print(f"Left out: {sentence}", markup=False)
    console.print(f"Written: {options.out}.", markup=False, soft_wrap=True)
