"""Average runs that differ only in some options, such as the seed, into one row of a table."""

from collections.abc import Mapping, Sequence

import pandas as pd

from regcascade.report.runs.names import titled
from regcascade.report.runs.run import Run, aligned
from regcascade.report.runs.sweeps import varied
from regcascade.report.tables.compare import columns_of, values_of
from regcascade.report.tables.measure_names import heading, rounded
from regcascade.utils.registry import did_you_mean

_NOT_TOLD = ("paths.",)  # where a run writes makes it no other run


def averaged(runs: Sequence[Run], overrides: Sequence[Mapping[str, str]], over: Sequence[str]) -> list[Run]:
    """Make a row for each group of runs whose overrides differ only in some keys, such as `seed`.

    Each measure of a pair is its mean over the runs of the group. Tests and intervals of these means know the spread
    over scans, not over runs. Rows are named by what they are and what varies between them.

    Args:
        runs: on the same pairs.
        overrides: those of each run, values by their keys.
        over: keys to average over.

    Raises:
        ValueError: if no run was given a key, two of a group were given the same, or the pairs are not the same.
    """
    known = dict.fromkeys(key for given in overrides for key in given)
    for key in over:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise ValueError(f"--over {key}: no run was given it. Given: {listed}.{did_you_mean(key, list(known))}")
    groups: dict[tuple[tuple[str, str], ...], dict[tuple[str, ...], Run]] = {}
    for run, given in zip(aligned(runs), overrides, strict=True):
        same = {key: text for key, text in given.items() if key not in over and not key.startswith(_NOT_TOLD)}
        group = groups.setdefault(tuple(sorted(same.items())), {})
        value = tuple(given.get(key, "") for key in over)
        if value in group:
            told = " ".join(f"{key}={text}" for key, text in zip(over, value, strict=True))
            raise ValueError(f"--over: {group[value].name} and {run.name} are the same but for {told}. Leave one out.")
        group[value] = run
    keys = varied([dict(same) for same in groups])
    rows = [(next(iter(group.values())).what.title, dict(same)) for same, group in groups.items()]
    names = [titled(name, same, keys) or "all runs" for name, same in rows]
    return [_mean(name, list(group.values())) for name, group in zip(names, groups.values(), strict=True)]


def _mean(name: str, runs: Sequence[Run]) -> Run:
    tables = pd.concat([run.pairs for run in runs], keys=range(len(runs)), names=["run"])
    pairs = tables.groupby(level=["fixed", "moving"], sort=False).mean().loc[runs[0].pairs.index]
    about = {"Runs": str(len(runs))}
    if measures := columns_of(runs)[0]:
        title, decimals = heading(measures[0])
        means = pd.Series([values_of(run, measures[0]).mean() for run in runs])
        about[f"{title}, SD over runs"] = rounded(means.std(ddof=1), decimals)
    return runs[0]._replace(name=name, pairs=pairs, failures=sum(run.failures for run in runs), about=about)
