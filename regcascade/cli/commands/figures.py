"""`regcascade figures`: draw charts of evaluated runs and pages of pairs."""

import argparse
from pathlib import Path

from regcascade.cli.console import say
from regcascade.report.figures.run_figures import extreme_pairs, file_name, pair_figures, runs_again, set_figures
from regcascade.report.figures.stage_charts import stages_of
from regcascade.report.figures.style import write_figure
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.run import read_runs


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    folders, unfinished = find_runs(options.runs)
    if options.checkpoint is not None and len(folders) > 1:
        raise ValueError(f"--checkpoint is of one run, and these are {len(folders)}. Draw them one by one.")
    if options.worst < 0:
        raise ValueError(f"--worst {options.worst} must be 0 or more.")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; name a folder.")
    runs = read_runs(folders, options.names)
    tables = {run.name: run.pairs for run in runs}
    pairs = [("pair", (fixed, moving)) for fixed, moving in options.pairs] or extreme_pairs(tables, options.worst)
    files, failed = list[Path](), list[str]()
    again = runs_again(folders, list(tables), failed, options.checkpoint) if pairs else {}
    for drawn in pair_figures(again, pairs, failed):
        place = options.out / file_name(drawn.run) if drawn.run and len(folders) > 1 else options.out
        files.append(write_figure(drawn.figure, place / f"{drawn.file}.png"))
    if failed and not files:
        raise ValueError(failed[0])
    charts = set_figures(runs, stages_of(folders, list(tables)))
    files += [write_figure(figure, options.out / f"{name}.png") for name, figure in charts]
    say(*(f"Left out: {folder} has no results (yet)." for folder in unfinished))
    say(*(f"Left out: {why}" for why in failed), f"Written: {', '.join(map(str, files))}.")
