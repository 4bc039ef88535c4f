"""`regcascade compare`: evaluated runs in one table, with tests."""

import argparse
from pathlib import Path

from rich.console import Console

from regcascade.commands.arguments import Commands
from regcascade.report.compare import compare, print_comparison, write_comparison
from regcascade.report.evaluated import before_registration, find_runs, read_runs


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    compare = commands.add_parser(
        "compare",
        help="put evaluated runs into one table, with paired tests",
        description="Put evaluated runs into the papers' table (mean and standard deviation of the measures, seconds, "
        "size), with paired tests between any two: t-test, Wilcoxon, Holm's correction, and bootstrap intervals that "
        "resample scans. The runs must be of the same pairs, labels and scans. Prints, and writes Markdown, LaTeX and "
        "CSV.",
        epilog="Examples: regcascade compare evaluations/2026-01-31/*; regcascade compare A B --names VM 'VM, r=2' "
        "--initial --out tables/liver; regcascade compare multirun/2026-01-31/12-00-00 --per-label.",
    )
    compare.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a folder with pairs.csv and summary.json (of an evaluation or a training run), or one that holds such "
        "folders, as a multirun's",
    )
    compare.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the rows; the folders' by default")
    compare.add_argument("--per-label", action="store_true", help="the measures of each label too")
    compare.add_argument("--initial", action="store_true", help="a row of the measures before registration")
    compare.add_argument("--out", type=Path, default=Path("comparison"), help="the folder to write")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    console = Console()
    folders, unfinished = find_runs(options.runs)
    runs = read_runs(folders, options.names)
    if options.initial:
        runs.insert(0, before_registration(runs[0]))
    comparison = compare(runs, options.per_label)
    print_comparison(comparison, console)
    for folder in unfinished:
        console.print(f"Left out, as it has no results (yet): {folder}", markup=False)
    files = write_comparison(comparison, options.out)
    console.print(f"Written: {', '.join(map(str, files))}.", markup=False, soft_wrap=True)
