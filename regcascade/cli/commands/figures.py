"""`regcascade figures`: charts of evaluated runs and pages of pairs."""

import argparse
from pathlib import Path

from rich.console import Console

from regcascade.cli.commands.arguments import Commands
from regcascade.report.figures.run_figures import file_name, run_pages, set_figures, settings_of
from regcascade.report.figures.stage_charts import stages_of
from regcascade.report.figures.style import write_figures
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.run import read_runs
from regcascade.utils.registry import import_user_modules


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    figures = commands.add_parser(
        "figures",
        help="draw evaluated runs: charts of all pairs, pages of the worst, the best or named ones",
        description="Draw evaluated runs for print, 180 mm wide, as PNG: Dice of each label as box plots, Dice against "
        "the initial Dice, the worst and best pairs, Dice against n and r where they vary; and a page for single "
        "pairs, which the run's own checkpoint registers again. The runs must be of the same pairs and labels.",
        epilog="Examples: regcascade figures evaluations/2026-01-31/12-00-00 --out figures; regcascade figures A B "
        "--names VM DR-Net --out figures --worst 0; regcascade figures A --out figures --pair case_3 case_8.",
    )
    figures.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="as in `regcascade compare`")
    figures.add_argument("--out", type=Path, required=True, help="the folder to write")
    figures.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the runs; the folders' by default")
    figures.add_argument(
        "--pair",
        dest="pairs",
        nargs=2,
        action="append",
        default=[],
        metavar=("FIXED", "MOVING"),
        help="scans to draw a page of, in place of the worst and best pairs; can be repeated",
    )
    figures.add_argument("--worst", type=int, default=3, metavar="K", help="pages of the K worst and K best pairs (3)")
    figures.add_argument("--checkpoint", type=Path, metavar="FILE", help="of the run, if it is not where it was")
    figures.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")
    figures.set_defaults(run=_figures)


def _figures(options: argparse.Namespace) -> None:
    import_user_modules(options.imports)
    folders, unfinished = find_runs(options.runs)
    if options.checkpoint is not None and len(folders) > 1:
        raise ValueError(f"--checkpoint is of one run, and these are {len(folders)}. Draw them one by one.")
    if options.worst < 0:
        raise ValueError(f"--worst {options.worst} must be 0 or more.")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; name a folder.")
    tables = {run.name: run.pairs for run in read_runs(folders, options.names)}
    console = Console()
    pages, without = {}, []
    for folder, (name, table) in zip(folders, tables.items(), strict=True):
        if options.pairs or options.worst:
            try:
                named = [(fixed, moving) for fixed, moving in options.pairs]
                pages[name] = run_pages(folder, table, named, options.worst, options.checkpoint)
            except ValueError as error:  # the other runs are to be drawn
                without.append(error)
    if without and not pages:
        raise without[0]
    settings = settings_of(folders, tables, options.checkpoint)
    files = write_figures(set_figures(tables, settings, stages_of(folders, list(tables))), options.out)
    for name, figures in pages.items():
        files += write_figures(figures, options.out if len(folders) == 1 else options.out / file_name(name))
    for left_out in [f"{folder} has no results (yet)." for folder in unfinished] + [str(error) for error in without]:
        console.print(f"Left out: {left_out}", markup=False)
    console.print(f"Written: {', '.join(map(str, files))}.", markup=False, soft_wrap=True)
