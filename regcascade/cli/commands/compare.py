"""`regcascade compare`: put evaluated runs into one table, with tests."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from regcascade.cli.console import say
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.run import Run, before_registration, read_runs
from regcascade.report.runs.sweeps import FINISHED, is_job, overrides_of, read_job, read_sweep
from regcascade.report.tables.compare import compare, print_comparison, untested, write_comparison
from regcascade.report.tables.ranking import left_out, rank
from regcascade.report.tables.seeds import averaged


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    folders, unfinished = find_runs(options.runs)
    jobs = {folder: read_job(folder) for folder in [*folders, *unfinished] if is_job(folder)}
    if options.over:
        runs, apart, said = _averaged(folders, options), "", [f"Averaged over {', '.join(options.over)}."]
    elif jobs or options.rank_by:
        ranking = rank(folders, jobs, options.rank_by, options.names)
        runs, apart = ranking.runs, ranking.apart
        said = [f"Ordered by {ranking.by}, best first.", *([f"No tests: {apart}"] if apart else [])]
    else:
        runs, apart, said = read_runs(folders, options.names), "", []
    if options.initial and not apart:
        runs.insert(0, before_registration(runs[0]))
    best = int(options.initial) if (jobs or options.rank_by) and not options.over else None
    comparison = untested(runs, options.per_label) if apart else compare(runs, options.per_label, best)
    print_comparison(comparison, Console())
    said += left_out([jobs[folder] for folder in unfinished if folder in jobs], list(jobs.values()))
    said += [f"Left out, as it has no results (yet): {folder}" for folder in unfinished if folder not in jobs]
    said += _open_sweeps({folder.parent for folder in jobs})
    files = write_comparison(comparison, options.out, said)
    say(*said, f"Written: {', '.join(map(str, files))}.")


def _averaged(folders: Sequence[Path], options: argparse.Namespace) -> list[Run]:
    if options.rank_by:
        raise ValueError("--rank-by orders single runs, and --over averages them: give one of the two.")
    runs = averaged(read_runs(folders), [overrides_of(folder) for folder in folders], options.over)
    if not options.names:
        return runs
    if len(options.names) != len(runs):
        listed = ", ".join(run.name for run in runs)
        raise ValueError(f"--names gives {len(options.names)} names for {len(runs)} rows: {listed}. Give one for each.")
    return [run._replace(name=name) for run, name in zip(runs, options.names, strict=True)]


def _open_sweeps(folders: Iterable[Path]) -> Iterator[str]:
    """Name the sweeps with missing jobs, and the command that resumes each."""
    for sweep in map(read_sweep, sorted(folders)):
        missing = len(sweep.jobs) - len(sweep.of(FINISHED)) + sweep.waiting
        if missing and sweep.command:
            waiting = f" ({sweep.waiting} not started)" if sweep.waiting else ""
            yield f"{sweep.folder} lacks {missing} of {len(sweep.jobs) + sweep.waiting} jobs{waiting}: {sweep.command}"
