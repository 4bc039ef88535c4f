"""`regcascade compare`: evaluated runs in one table, with tests."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from regcascade.cli.commands.arguments import Commands
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.run import Run, before_registration, check_names, read_runs
from regcascade.report.runs.sweeps import FINISHED, is_job, overrides_of, read_job, read_sweep
from regcascade.report.tables.compare import compare, print_comparison, untested, write_comparison
from regcascade.report.tables.ranking import left_out, rank
from regcascade.report.tables.seeds import averaged


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    compare = commands.add_parser(
        "compare",
        help="put evaluated runs into one table, with paired tests",
        description="Put evaluated runs into the papers' table (mean and standard deviation of the measures, seconds, "
        "size), with paired tests between any two: t-test, Wilcoxon, Holm's correction, and bootstrap intervals that "
        "resample scans. The runs must be of the same pairs, labels and scans. Prints, and writes Markdown, LaTeX and "
        "CSV. Jobs of a sweep come best first, with what the sweep varies beside their measures.",
        epilog="Examples: regcascade compare evaluations/2026-01-31/*; regcascade compare A B --names VM 'VM, r=2' "
        "--initial --out tables/liver; regcascade compare multirun/2026-01-31/12-00-00 --over seed.",
    )
    compare.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a folder with pairs.csv and summary.json (of an evaluation or a training run), or one that holds such "
        "folders, as a multirun's, or a pattern in quotes that such folders match",
    )
    compare.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the rows; the folders' by default")
    compare.add_argument("--per-label", action="store_true", help="the measures of each label too")
    compare.add_argument("--initial", action="store_true", help="a row of the measures before registration")
    compare.add_argument(
        "--rank-by",
        metavar="MEASURE",
        help="order the rows by this column of pairs.csv, best first, or by loss, where nothing is labelled; jobs of "
        "sweeps by the mean Dice unless told",
    )
    compare.add_argument(
        "--over",
        nargs="+",
        default=[],
        metavar="KEY",
        help="options, such as seed, over whose values to average: runs that were given the same but for them are one "
        "row, and the measures of a pair their means",
    )
    compare.add_argument("--out", type=Path, default=Path("comparison"), help="the folder to write")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    console = Console()
    folders, unfinished = find_runs(options.runs)
    jobs = {folder: read_job(folder) for folder in [*folders, *unfinished] if is_job(folder)}
    if options.names and not options.over:
        check_names(options.names, folders)
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
    print_comparison(comparison, console)
    said += left_out([jobs[folder] for folder in unfinished if folder in jobs], list(jobs.values()))
    said += [f"Left out, as it has no results (yet): {folder}" for folder in unfinished if folder not in jobs]
    said += _open_sweeps({folder.parent for folder in jobs})
    for line in said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    files = write_comparison(comparison, options.out, said)
    console.print(f"Written: {', '.join(map(str, files))}.", markup=False, soft_wrap=True)


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
    """What is missing of sweeps, and the command that goes on with each."""
    for sweep in map(read_sweep, sorted(folders)):
        missing = len(sweep.jobs) - len(sweep.of(FINISHED)) + sweep.waiting
        if missing and sweep.command:
            waiting = f" ({sweep.waiting} not started)" if sweep.waiting else ""
            yield f"{sweep.folder} lacks {missing} of {len(sweep.jobs) + sweep.waiting} jobs{waiting}: {sweep.command}"
