"""`regcascade figures`: draw charts of evaluated runs and pages of pairs."""

import argparse

from regcascade.cli.console import say
from regcascade.report.figures.run_figures import file_name, run_pages, set_figures, settings_of
from regcascade.report.figures.stage_charts import stages_of
from regcascade.report.figures.style import write_figures
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
    tables = {run.name: run.pairs for run in read_runs(folders, options.names)}
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
    say(*(f"Left out: {folder} has no results (yet)." for folder in unfinished))
    say(*(f"Left out: {error}" for error in without), f"Written: {', '.join(map(str, files))}.")
