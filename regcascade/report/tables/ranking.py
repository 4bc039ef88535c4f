"""Rank runs of sweeps, best first, with what was varied beside their measures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regcascade.report.runs.run import NotComparableError, Run, aligned, named_runs
from regcascade.report.runs.sweeps import FAILED, Job, described, short_names, shown_value, varied
from regcascade.report.tables.compare import columns_of, values_of
from regcascade.report.tables.measure_names import KNOWN
from regcascade.utils.registry import did_you_mean

DICE, LOSS, CC = "dice_mean", "loss", "cc"
_BETTER_MORE = ("dice_", "jaccard_")


class Ranking(NamedTuple):
    """Runs in order."""

    runs: list[Run]  # best first; those without the measure come last
    by: str  # the measure
    apart: str  # why paired tests cannot be made; empty where they can


def rank(
    folders: Sequence[Path], jobs: Mapping[Path, Job], by: str | None = None, names: Sequence[str] = ()
) -> Ranking:
    """Order runs by their mean over pairs.

    Args:
        folders: of evaluated runs.
        jobs: those of the folders that are jobs of a sweep; their numbers name the rows.
        by: a column of `pairs.csv`, or `loss`, the validation loss of runs without labels. By default the first of
            `dice_mean`, `loss` and `cc` that is known.
        names: of the rows, one for each folder.

    Raises:
        ValueError: if no run has the measure, or a folder is damaged.
    """
    runs = named_runs(folders, names)
    if not names:
        runs = [run._replace(name=name) for run, name in zip(runs, _numbered(runs, folders, jobs), strict=True)]
    losses = []
    for folder, run in zip(folders, runs, strict=True):
        labelled, objective = values_of(run, DICE).notna().any(), jobs[folder].objective if folder in jobs else None
        losses.append(math.nan if labelled or objective is None else objective)
    by = _measure(by, runs, losses)
    means = losses if by == LOSS else [float(values_of(run, by).mean()) for run in runs]
    keys = varied(jobs[folder].overrides for folder in folders if folder in jobs)
    titles = short_names(keys)
    ranked = []
    for folder, run, loss in zip(folders, runs, losses, strict=True):
        given = jobs[folder].overrides if folder in jobs else {}
        about = {titles[key]: shown_value(given.get(key, "")) for key in keys}
        ranked.append(run._replace(about=about | ({"Loss": f"{loss:.5g}"} if by == LOSS else {})))
    better = KNOWN[by].better > 0 if by in KNOWN else by.startswith(_BETTER_MORE)
    sign = 1.0 if better else -1.0
    order = sorted(range(len(runs)), key=lambda k: math.inf if math.isnan(means[k]) else -sign * means[k])
    in_order = [ranked[k] for k in order]
    try:
        return Ranking(aligned(in_order), by, "")
    except NotComparableError as error:
        return Ranking(in_order, by, str(error))


def left_out(jobs: Sequence[Job], among: Sequence[Job]) -> Iterator[str]:
    """Say for each job without results its name, the reason, and its log; `among` all jobs, which tell what varies."""
    keys = varied(job.overrides for job in among)
    for job in jobs:
        words = [f"#{job.number}" if job.number >= 0 else job.folder.name, described(job.overrides, keys)]
        name = " ".join(word for word in words if word)
        where = f" Log: {job.log}." if job.log else f" Folder: {job.folder}."
        yield f"{'Failed' if job.state == FAILED else 'Not ended'}: {name}: {job.reason.rstrip('.')}.{where}"


def _numbered(runs: Sequence[Run], folders: Sequence[Path], jobs: Mapping[Path, Job]) -> list[str]:
    """Add their numbers to the names of jobs; those of one sweep are titles only, as columns tell what varies."""
    numbers = [f"#{jobs[folder].number}" if folder in jobs and jobs[folder].number >= 0 else "" for folder in folders]
    one_sweep = len({folder.parent for folder in jobs}) == 1
    names = [run.what.title if one_sweep and number else run.name for run, number in zip(runs, numbers, strict=True)]
    return [f"{name} {number}".strip() for name, number in zip(names, numbers, strict=True)]


def _measure(by: str | None, runs: Sequence[Run], losses: Sequence[float]) -> str:
    measures = [column for group in columns_of(runs) for column in group]
    known = [*measures, *([LOSS] if not all(map(math.isnan, losses)) else [])]
    if by is None:
        return next((name for name in (DICE, LOSS, CC) if name in known), known[0])
    if by not in known:
        raise ValueError(f"--rank-by {by}: no run has it. Known: {', '.join(known)}.{did_you_mean(by, known)}")
    return by
