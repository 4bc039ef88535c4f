"""Jobs of a sweep (`-m`): an error ends its job only, the end ranks the jobs, and a killed sweep can be resumed."""

import logging
import math
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from regcascade.cli import hydra_app
from regcascade.cli.console import say
from regcascade.cli.run_folder import in_sweep, read_config
from regcascade.report.runs import sweeps
from regcascade.report.runs.sweeps import FAILED, FINISHED, OPEN, Job, Sweep, read_job, read_sweep
from regcascade.report.tables.compare import print_comparison, untested, write_comparison
from regcascade.report.tables.ranking import left_out, rank
from regcascade.utils import distributed as ranks
from regcascade.utils.config_diff import differences

RANKING = "ranking"
_PRINTED = ("dice_mean", "cc", "landmark_distance_mm", "folding_percent")  # the files have all measures
_MOST_NAMED = 3
_log = logging.getLogger(__name__)
_record = rank_zero_only(sweeps.write_job)


class SweepRecord(Callback):
    """Write `sweep.json` at the start of a sweep: what varies, the number of jobs, the command that resumes it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the file, and print the ranking at the end."""
        folder = Path(config.hydra.sweep.dir)
        hydra_app.at_end.append(partial(finish_sweep, folder))
        # Parameters of the sweeper, and overrides of the command line, which win.
        parameters = config.hydra.sweeper.get("params") or {}
        texts = [*(f"{key}={value}" for key, value in parameters.items()), *config.hydra.overrides.task]
        overrides = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(texts)}
        swept = {key: one for key, one in overrides.items() if one.is_sweep_override()}
        planned = config.hydra.sweeper.get("n_trials")  # of a search; a grid has a job for each combination
        try:
            if planned is None:
                planned = math.prod(len(list(override.sweep_string_iterator())) for override in swept.values())
        except (HydraException, TypeError):  # such as for glob(*): the number stays unknown
            pass
        hydra = [one for one in config.hydra.overrides.hydra if not one.startswith(("hydra.sweep.dir=", "hydra.mode="))]
        words = shlex.join([*config.hydra.overrides.task, *hydra, f"hydra.sweep.dir={folder}"])
        name, installed = config.hydra.job.name, Path(sys.argv[0]).parent == Path(__file__).parent
        command = f"regcascade {name}" if installed else f"python {name}.py"
        sweeps.write_sweep(folder, list(swept), planned, f"{command} -m {words}")


def run_job(config: DictConfig, work: Callable[[DictConfig], float | None]) -> float | None:
    """Train a run by `work`. In a sweep, record how the job ended; an error ends this job only, SIGTERM all.

    A resumed sweep skips finished jobs.

    Returns:
        Objective; None, which a search counts as a failure, if the job failed or the objective is not finite.
    """
    if not in_sweep():
        return work(config)
    folder = Path(config.paths.run)
    name = f"Job #{HydraConfig.get().job.num}"
    try:
        before = _before(folder, config)
    except ValueError as error:  # whose run is it? its record stays
        _log.error("%s: %s", name, error)
        hydra_app.at_end.append(lambda: False)
        return None
    try:
        if before is not None:
            _log.info("%s has finished before and is kept.", name)
            return before.objective
        objective = work(config)
    except hydra_app.Terminated as end:
        _record(folder, FAILED, None, end.text)
        raise
    except Exception as error:  # of any kind: it must not end the other jobs
        known = hydra_app.reason(error)
        text = " ".join((known or f"{type(error).__name__}: {error}").split())
        _log.error("%s failed: %s", name, text, exc_info=None if known else error)
        _record(folder, FAILED, None, text)
        return None
    _record(folder, FINISHED, objective)
    return objective if objective is not None and math.isfinite(objective) else None


def check_direction(has_labels: bool) -> None:
    """Raise ValueError for a search in the wrong direction: the objective is the Dice, or without labels the loss."""
    if not in_sweep() or not (direction := HydraConfig.get().sweeper.get("direction")):
        return
    given, right = getattr(direction, "name", str(direction)), "maximize" if has_labels else "minimize"
    if given != right:
        objective = "the validation Dice" if has_labels else "the validation loss, as nothing is labelled"
        raise ValueError(f"hydra.sweeper.direction={given}: the objective is {objective}; set it to {right}.")


def finish_sweep(folder: Path) -> bool:
    """Print the ranking of a sweep, its jobs without results, and the command that resumes it.

    Returns whether all jobs have finished.
    """
    sweep = read_sweep(folder)
    finished, failed, unended = (sweep.of(state) for state in (FINISHED, FAILED, OPEN))
    if finished:
        _print_ranking(sweep, finished)
    say(*left_out([*failed, *unended], sweep.jobs))
    counts = {"finished": len(finished), "failed": len(failed), "not ended": len(unended), "not started": sweep.waiting}
    told = ", ".join(f"{number} {what}" for what, number in counts.items() if number) or "no job has started"
    say(f"Sweep {sweep.folder}: {told}.")
    complete = bool(finished) and not (failed or unended or sweep.waiting)
    if not complete and sweep.command:
        say(f"Go on with it: {sweep.command}")
    return complete


def _print_ranking(sweep: Sweep, finished: list[Job]) -> None:
    """Print the finished jobs, best first, and write the table into the folder of the sweep."""
    try:
        ranking = rank([job.folder for job in finished], {job.folder: job for job in finished})
    except ValueError as error:  # damaged files of one job must not hide the others
        say(f"No ranking: {error}")
        return
    table = untested(ranking.runs)
    shown = [measure for measure in table.measures if measure in (*_PRINTED, ranking.by)]
    print_comparison(table._replace(measures=shown), Console())
    listed = ", ".join(map(str, write_comparison(table, sweep.folder / RANKING)))
    say(f"Ranked by {ranking.by}, best first. Written: {listed}. With tests: regcascade compare {sweep.folder}.")


def _before(folder: Path, config: DictConfig) -> Job | None:
    """Read the job if it finished before; raise ValueError if its folder holds a run with another config."""
    file = folder / "config.yaml"
    if file.is_file():
        now = OmegaConf.to_container(config, resolve=True)
        changes = list(differences(OmegaConf.to_container(read_config(file)), now))
        if changes := [change for change in changes if not change.startswith("logger.")]:
            raise ValueError(
                f"{folder} holds a run with other options ({'; '.join(changes[:_MOST_NAMED])}). Go on with the same "
                "command, or leave hydra.sweep.dir out for a new sweep."
            )
    job = read_job(folder)
    record = folder / sweeps.JOB
    done = job.state == FINISHED and record.is_file()
    if not done and ranks.is_first():
        record.unlink(missing_ok=True)
    return job if done else None
