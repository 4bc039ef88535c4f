"""`regcascade report`: write evaluated runs as one HTML page."""

import argparse

from rich.console import Console

from regcascade.cli.console import say
from regcascade.report.html.page import write_report
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.run import read_runs


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.worst < 0:
        raise ValueError(f"--worst {options.worst} must be 0 or more.")
    if options.out.is_dir():  # before any work
        raise ValueError(f"--out {options.out} is a folder; name the file to write: {options.out / 'report.html'}.")
    folders, unfinished = find_runs(options.runs)
    runs = read_runs(folders, options.names)
    left_out = [f"{folder} has no results (yet)." for folder in unfinished]
    with Console(stderr=True).status("Drawing"):
        missing = write_report(folders, runs, options.out, options.worst, left_out)
    say(*(f"Left out: {sentence}" for sentence in missing), f"Written: {options.out}.")
