"""Parsers of `compare`, `table`, `figures` and `report`, which read what trainings and evaluations wrote."""

import argparse
from pathlib import Path

from regcascade.cli.parsers.choices import WORST_PAIRS
from regcascade.cli.parsers.shared import Commands, add_imports
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
    _add_runs(
        parser,
        "a folder with pairs.csv and summary.json (of an evaluation or a training run), or one that holds such "
        "folders, as a multirun's, or a pattern in quotes that such folders match",
        "rows",
    )
    parser.add_argument("--per-label", action="store_true", help="the measures of each label too")
    parser.add_argument("--initial", action="store_true", help="a row of the measures before registration")
    parser.add_argument(
        "--rank-by",
        metavar="MEASURE",
        help="order the rows by this column of pairs.csv, best first, or by loss, where nothing is labelled; jobs of "
        "sweeps by the mean Dice unless told",
    )
    parser.add_argument(
        "--over",
        nargs="+",
        default=[],
        metavar="KEY",
        help="options, such as seed, over whose values to average: runs that were given the same but for them are one "
        "row, and the measures of a pair their means",
    )
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="the folder to write")


def _add_table(commands: Commands) -> None:
    parser = commands.add_parser(
        "table",
        help="assemble a table of the papers from runs, beside what they print",
        description="Show a table of the papers with the command of every row; or, with --runs, what the runs found "
        "there give for it beside the printed numbers. A training is of a row by experiment=..., an evaluation by the "
        "checkpoint it is of, or by its method. What a run has otherwise than the paper stands beside it.",
        epilog="Examples: regcascade table rcn/2; regcascade table drnet/5 --runs runs evaluations --out tables.",
    )
    parser.add_argument("table", nargs="?", help=f"{', '.join(TABLES)}, or all")
    parser.add_argument("--list", action="store_true", help="name the tables")
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders to search, such as runs and evaluations",
    )
    parser.add_argument("--out", type=Path, help="a folder to write Markdown, LaTeX and CSV to")


def _add_figures(commands: Commands) -> None:
    parser = commands.add_parser(
        "figures",
        help="draw evaluated runs: charts of all pairs, pages of the worst, the best or named ones",
        description="Draw evaluated runs for print, 180 mm wide, as PNG: Dice of each label as box plots, Dice against "
        "the initial Dice, the worst and best pairs, Dice against n and r where they vary; and a page for single "
        "pairs, which the run's own checkpoint registers again. The runs must be of the same pairs and labels.",
        epilog="Examples: regcascade figures evaluations/2026-01-31/12-00-00 --out figures; regcascade figures A B "
        "--names VM DR-Net --out figures --worst 0; regcascade figures A --out figures --pair case_3 case_8.",
    )
    _add_runs(parser)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--pair",
        dest="pairs",
        nargs=2,
        action="append",
        default=[],
        metavar=("FIXED", "MOVING"),
        help="scans to draw a page of, in place of the worst and best pairs; can be repeated",
    )
    parser.add_argument("--worst", type=int, default=3, metavar="K", help="pages of the K worst and K best pairs (3)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="of the run, if it is not where it was")
    add_imports(parser)


def _add_report(commands: Commands) -> None:
    parser = commands.add_parser(
        "report",
        help="write evaluated runs as one self-contained HTML page",
        description="Write one HTML page of evaluated runs that needs nothing else: the table and tests of `regcascade "
        "compare`, the charts of `regcascade figures`, the worst pairs with pictures from the runs' checkpoints, "
        "configuration, versions, commits and hashes. The runs must be of the same pairs, labels and scans.",
        epilog="Examples: regcascade report runs/2026-01-31/12-00-00 --out report.html; regcascade report A B --names "
        "VM DR-Net --out liver.html --worst 5.",
    )
    _add_runs(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write: report.html")
    parser.add_argument(
        "--worst", type=int, default=WORST_PAIRS, metavar="K", help=f"show the K worst pairs ({WORST_PAIRS})"
    )
    add_imports(parser)


def _add_runs(parser: argparse.ArgumentParser, about: str = "as in `regcascade compare`", what: str = "runs") -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=about)
    parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help=f"of the {what}; the folders' by default"
    )
