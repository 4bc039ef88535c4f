"""Find the folders of evaluated runs that a user gives, and name their rows in a table."""

from collections.abc import Sequence
from pathlib import Path

from regcascade.evaluation.layout import CONFIG, EVALUATE, PAIRS, SUMMARY
from regcascade.report.runs.sweeps import read_job, read_sweep, sweeps_within

_SHOWN = 3  # so many names in a message


def find_runs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Find run folders: each path itself, or all those within it (a multirun folder), in order.

    A path with `*`, `?` or `[` that is no folder stands for the folders that match it.

    Returns:
        The folders that hold both `pairs.csv` and `summary.json`, and those within a multirun folder that lack one:
        jobs that failed or still run.

    Raises:
        ValueError: if a path is no folder, is or holds no evaluated run, or if a run is named twice.
    """
    runs: list[Path] = []
    unfinished: list[Path] = []
    for path in (match for pattern in paths for match in _matches(pattern)):
        if not path.is_dir():
            wrong = f"{path} is a file" if path.exists() else f"There is no {path}"
            raise ValueError(f"{wrong}. Give folders of runs, or one that holds them: multirun/<date>/<time>.")
        within = _folders_within(path)
        if path in within or not within:
            if path in sweeps_within(path) and not read_sweep(path).jobs:
                raise ValueError(f"{path} is a sweep of which no job has started. Look at what its command printed.")
            check_finished(path)
            runs.append(path)
            continue
        finished = [folder for folder in within if not _missing(folder)]
        if not finished:
            jobs = [read_job(folder) for folder in within]
            reasons = [f"{job.folder.name}: {job.reason.rstrip('.')}" for job in jobs if job.reason and job.overrides]
            why = f" {first_few(reasons)}." if reasons else ""
            raise ValueError(
                f"None of the {len(within)} runs in {path} has both {PAIRS} and {SUMMARY}.{why} {EVALUATE}"
            )
        runs += finished
        unfinished += [folder for folder in within if folder not in finished]
    places = [run.resolve() for run in runs]
    if twice := [str(run) for number, run in enumerate(runs) if places[number] in places[:number]]:
        raise ValueError(f"{first_few(twice)} is named twice. Name every run once.")
    return runs, unfinished


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Name runs by their folders, with as many of those above as tell them apart.

    >>> folder_names([Path("/runs/a/last"), Path("/runs/b/last"), Path("/runs/b/r2")])
    ['a/last', 'b/last', 'r2']
    """
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for number, own in enumerate(parts):
        others = parts[:number] + parts[number + 1 :]
        length = next((k for k in range(1, len(own)) if all(own[-k:] != other[-k:] for other in others)), 1)
        names.append("/".join(own[-length:]))
    return names


def check_finished(folder: Path) -> None:
    """Raise ValueError unless a folder holds the files of an evaluation that has ended."""
    missing = _missing(folder)
    if missing:
        state = "is an evaluation that did not end" if missing == [SUMMARY] else "is no evaluated run"
        raise ValueError(f"{folder} {state}: it has no {' and no '.join(missing)}. {EVALUATE}")


def first_few(names: Sequence[str]) -> str:
    """List the first few names, and say how many more there are.

    >>> first_few(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _matches(path: Path) -> list[Path]:
    """The path itself, or the folders that match a pattern that no shell has expanded."""
    if path.exists() or not any(character in str(path) for character in "*?["):
        return [path]
    found = sorted(match for match in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if match.is_dir())
    if not found:
        raise ValueError(f"No folder matches {path}.")
    return found


def _folders_within(path: Path) -> list[Path]:
    """The folders, among this one and those below, of evaluations, trainings and jobs of sweeps."""
    found = {file.parent for name in (PAIRS, SUMMARY, CONFIG) for file in path.rglob(name)}
    found |= {job.folder for sweep in sweeps_within(path) for job in read_sweep(sweep).jobs}
    return sorted(folder for folder in found if folder.name != ".hydra")


def _missing(folder: Path) -> list[str]:
    return [name for name in (PAIRS, SUMMARY) if not (folder / name).is_file()]
