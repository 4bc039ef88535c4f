"""Parsers of `compare`, `table`, `figures` and `report`, which read the results of trainings and evaluations."""

import argparse
from pathlib import Path

from regcascade.cli.parsers.choices import WORST_PAIRS
from regcascade.cli.parsers.shared import Commands, add_imports, add_path
from regcascade.report.paper.experiments import TABLES


def add(commands: Commands) -> None:
    """Add these commands."""
    _add_compare(commands)
    _add_table(commands)
    _add_figures(commands)
    _add_report(commands)


def _add_compare(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="put evaluated runs into one table, with paired tests",
        description="Put evaluated runs into the papers' table (mean and standard deviation of the measures, seconds, "
        "size), with paired tests between any two: t-test, Wilcoxon, Holm's correction, and bootstrap intervals that "
        "resample scans. The runs must be of the same pairs, labels and scans. Prints, and writes Markdown, LaTeX and "
        "CSV. Jobs of a sweep come best first, with what the sweep varies beside their measures.",
        epilog="Examples: regcascade compare evaluations/2026-01-31/*; regcascade compare A B --names VM 'VM, r=2' "
        "--initial --out tables/liver; regcascade compare multirun/2026-01-31/12-00-00 --over seed.",
    )
    about = (
        "folder with pairs.csv and summary.json (an evaluation or a training), folder of such folders (a multirun), "
    )
    _add_runs(parser, f"{about}or quoted pattern that matches them", "rows")
    parser.add_argument("--per-label", action="store_true", help="the measures of each label too")
    parser.add_argument("--initial", action="store_true", help="a row of the measures before registration")
    about = "order the rows by this column of pairs.csv, or by loss, best first (sweeps: by the mean Dice)"
    parser.add_argument("--rank-by", metavar="MEASURE", help=about)
    about = "average over the values of these options, such as seed: runs with otherwise the same options are one row"
    parser.add_argument("--over", nargs="+", default=[], metavar="KEY", help=about)
    add_path(parser, "--out", "the folder to write", "DIR", default=Path("comparison"))


def _add_table(commands: Commands) -> None:
    parser = commands.add_parser(
        "table",
        help="assemble a table of the papers from runs, beside what they print",
        description="Show a table of the papers with the command of every row; with --runs, also the results of these "
        "runs beside the printed numbers. A training belongs to a row by experiment=..., an evaluation by its "
        "checkpoint or its method. Options that differ from the paper's are listed.",
        epilog="Examples: regcascade table rcn/2; regcascade table drnet/5 --runs runs evaluations --out tables.",
    )
    parser.add_argument("table", nargs="?", help=f"{', '.join(TABLES)}, or all")
    parser.add_argument("--list", action="store_true", help="name the tables")
    add_path(parser, "--runs", "folders to search, such as runs and evaluations", "DIR", nargs="+", default=[])
    add_path(parser, "--out", "a folder to write Markdown, LaTeX and CSV to", "DIR")


def _add_figures(commands: Commands) -> None:
    parser = commands.add_parser(
        "figures",
        help="draw evaluated runs: charts of all pairs, pages of the worst, the best or named ones",
        description="Draw evaluated runs for print, 180 mm wide, as PNG: box plots of the Dice of each label, Dice "
        "against the initial Dice, the worst and best pairs, Dice and landmark distance against n and r; and single "
        "pairs, registered again: runs side by side, a page of each. The runs must be of the same pairs and labels.",
        epilog="Examples: regcascade figures evaluations/2026-01-31/12-00-00 --out figures; regcascade figures A B "
        "--names VM DR-Net --out figures --worst 0; regcascade figures A --out figures --pair case_3 case_8.",
    )
    _add_runs(parser)
    add_path(parser, "--out", "the folder to write", "DIR", required=True)
    pair, about = ("FIXED", "MOVING"), "draw a page of this pair, not of the worst and best ones; can be repeated"
    parser.add_argument("--pair", dest="pairs", nargs=2, action="append", default=[], metavar=pair, help=about)
    parser.add_argument("--worst", type=int, default=3, metavar="K", help="pages of the K worst and K best pairs (3)")
    add_path(parser, "--checkpoint", "checkpoint of the run, if it is not where it was")
    add_imports(parser)


def _add_report(commands: Commands) -> None:
    parser = commands.add_parser(
        "report",
        help="write evaluated runs as one self-contained HTML page",
        description="Write evaluated runs as one HTML page: the table and tests of `regcascade compare`, the charts of "
        "`regcascade figures`, pictures of the worst pairs, configuration, versions, commits and hashes. The runs must "
        "be of the same pairs, labels and scans.",
        epilog="Examples: regcascade report runs/2026-01-31/12-00-00 --out report.html; regcascade report A B --names "
        "VM DR-Net --out liver.html --worst 5.",
    )
    _add_runs(parser)
    add_path(parser, "--out", "the page to write: report.html", required=True)
    about = f"show the K worst pairs ({WORST_PAIRS})"
    parser.add_argument("--worst", type=int, default=WORST_PAIRS, metavar="K", help=about)
    add_imports(parser)


def _add_runs(parser: argparse.ArgumentParser, about: str = "as in `regcascade compare`", what: str = "runs") -> None:
    add_path(parser, "runs", about, "RUN", nargs="+")
    about = f"names of the {what} (what they are: VoxelMorph CR n=2)"
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME", help=about)
