"""Read sweeps from their folders: what each job was given, and whether it finished, failed or did not end."""

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regcascade.evaluation.layout import CHECKPOINTS, LAST, PAIRS, SUMMARY, read_json
from regcascade.utils.files import read_yaml, write_json

SWEEP, JOB = "sweep.json", "job.json"
OVERRIDES = ".hydra/overrides.yaml"  # Hydra's own record of a job
FINISHED, FAILED, OPEN = "finished", "failed", "open"
_GRID = "multirun.yaml"  # what Hydra's grid sweeper writes, and others do not
_OF_A_RUN = ("metrics.csv", f"{CHECKPOINTS}/{LAST}", PAIRS, "train.log")


class Job(NamedTuple):
    """One job of a sweep."""

    folder: Path
    number: int  # -1 if unknown
    overrides: dict[str, str]  # from the command line, values by their keys
    state: str  # `finished`, `failed` or `open` (killed, or still running)
    reason: str  # why it is not finished, in one line
    log: Path | None
    objective: float | None  # what the sweep optimises


class Sweep(NamedTuple):
    """A sweep."""

    folder: Path  # with a folder for each of its jobs
    jobs: list[Job]  # those that have started, in order
    planned: int | None  # number of jobs, where known
    command: str  # resumes it; empty where unknown

    def of(self, state: str) -> list[Job]:
        """The jobs in a state."""
        return [job for job in self.jobs if job.state == state]

    @property
    def waiting(self) -> int:
        """How many jobs have not started."""
        return max((self.planned or 0) - len(self.jobs), 0)


def sweeps_within(path: Path) -> list[Path]:
    """Find the folders of sweeps among a folder and those below it."""
    return sorted({file.parent for name in (SWEEP, _GRID) for file in path.rglob(name)})


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep from its folder; a damaged file is a ValueError."""
    record = _record(folder / SWEEP)
    jobs = [read_job(file.parents[1]) for file in folder.glob(f"*/{OVERRIDES}")]
    jobs.sort(key=lambda job: (job.number, job.folder))
    return Sweep(folder, jobs, record.get("planned"), str(record.get("command") or ""))


def is_job(folder: Path) -> bool:
    """Whether a folder is that of a job of a sweep."""
    return (folder / OVERRIDES).is_file() and any((folder.parent / name).is_file() for name in (SWEEP, _GRID))


def read_job(folder: Path) -> Job:
    """Read a job from its folder; a damaged file is a ValueError."""
    record = _record(folder / JOB)
    evaluated = all((folder / name).is_file() for name in (PAIRS, SUMMARY))
    state, reason = record.get("state"), str(record.get("error") or "")
    if state != FAILED:
        state = FINISHED if evaluated or state == FINISHED else OPEN
    if state == OPEN:
        times = [path.stat().st_mtime for name in _OF_A_RUN if (path := folder / name).is_file()]
        last = f"last written {datetime.datetime.fromtimestamp(max(times)):%Y-%m-%d %H:%M:%S}" if times else ""
        reason = f"it has not ended (killed, or still running); {last or 'it has written nothing'}"
    number = re.match(r"\d+", folder.name)
    objective = record.get("objective")
    return Job(
        folder=folder,
        number=int(number[0]) if number else -1,
        overrides=overrides_of(folder),
        state=state,
        reason=reason,
        log=min(folder.glob("*.log"), default=None),
        objective=float(objective) if isinstance(objective, int | float) else None,
    )


def overrides_of(folder: Path) -> dict[str, str]:
    """Read the overrides of a run, values by their keys; none where Hydra left no record."""
    file = folder / OVERRIDES
    given = read_yaml(file) if file.is_file() else []
    if not isinstance(given, list):
        raise ValueError(f"{file} is no list of overrides. Remove its folder.")
    parts = (str(one).lstrip("+").partition("=") for one in given)
    return {key: value for key, equals, value in parts if equals}


def write_job(folder: Path, state: str, objective: float | None, error: str = "") -> None:
    """Write how a job ended into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    known = None if objective is None or not math.isfinite(objective) else objective
    write_json(folder / JOB, {"state": state, "objective": known, "error": error})


def write_sweep(folder: Path, swept: Sequence[str], planned: int | None, command: str) -> None:
    """Write the record of a sweep: the keys it varies, how many jobs it has, and the command that resumes it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SWEEP, {"swept": list(swept), "planned": planned, "command": command})


def swept_by(folder: Path) -> list[str]:
    """Read which keys a sweep varies."""
    return [str(key) for key in _record(folder / SWEEP).get("swept") or []]


def varied(jobs: Iterable[Mapping[str, str]]) -> list[str]:
    """Find the keys of overrides that are not the same in all jobs, in the order in which they appear.

    >>> varied([{"n": "2", "seed": "1"}, {"n": "2", "seed": "2"}])
    ['seed']
    """
    given = list(jobs)
    keys = dict.fromkeys(key for overrides in given for key in overrides)
    return [key for key in keys if len({overrides.get(key) for overrides in given}) > 1]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Shorten keys to their last part, where that tells enough (lambda1 for loss.lambda1)."""
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    several = {name for name in last.values() if name == "name" or list(last.values()).count(name) > 1}
    return {key: key if name in several else name for key, name in last.items()}


def shown_value(text: str) -> str:
    """Round a value with many decimals, as a search draws it."""
    try:
        return f"{float(text):.4g}" if len(text) > 8 else text
    except ValueError:
        return text


def described(overrides: Mapping[str, str], keys: Sequence[str]) -> str:
    """Write overrides in a few words; empty where there are none of these keys.

    >>> described({"loss.lambda1": "0.5", "n": "2"}, ["loss.lambda1", "n"])
    'lambda1=0.5 n=2'
    """
    names = short_names([key for key in keys if key in overrides])
    return " ".join(f"{name}={shown_value(overrides[key])}" for key, name in names.items())


def _record(path: Path) -> dict[str, Any]:
    return read_json(path, "Remove it.") if path.is_file() else {}
