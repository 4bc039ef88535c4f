"""The page of a run on W&B without hand work: its config, name, group and tags, and the best of each measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

from regcascade import ranks
from regcascade.report.sweeps import SWEEP, described, overrides_of, swept_by

STEP = "trainer/global_step"  # Lightning's name
JOB_TYPE = "train"
LONGEST_NAME = 120  # W&B takes 128
# What W&B shows of a run in its table, of the values over the steps.
BEST = {
    "val/dice": "max",
    "val/cc": "max",
    "val/loss": "min",
    "val/landmark_distance_voxels": "min",
    "val/folding_percent": "last",  # the least is that of the start
    "train/gradient_norm": "max",
    "train/pairs_per_second": "mean",
    "train/peak_memory_mib": "max",
    "train/peak_process_memory_mib": "max",
}
_NOT_NAMING = ("paths.", "imports", "logger", "data.root", "ckpt_path", "trainer.enable_progress_bar")


def run_name(folder: Path) -> str:
    """What a run is called: in a sweep by what that varies, else by its overrides, or by its folder if it has none."""
    overrides = {key: value for key, value in overrides_of(folder).items() if not key.startswith(_NOT_NAMING)}
    swept = [key for key in swept_by(folder.parent) if key in overrides]
    name = described(overrides, swept or list(overrides))
    return name[:LONGEST_NAME] or "/".join(folder.resolve().parts[-2:])


def group_of(folder: Path) -> str | None:
    """The sweep that a run is a job of, by the last two parts of its folder; None for a run by itself."""
    return "/".join(folder.resolve().parts[-3:-1]) if (folder.parent / SWEEP).is_file() else None


def begin_logging(loggers: Sequence[Logger], options: Mapping[str, Any], n: int, parameters: int) -> None:
    """Hand a run's config to its loggers, and W&B what makes a dashboard of it.

    Args:
        loggers: of the run.
        options: the resolved config, plain values.
        n: the deformable stages, which the config may leave to the model.
        parameters: of the model.
    """
    for logger in loggers:
        logger.log_hyperparams({**options, "stages": n, "parameters": parameters})
        if isinstance(logger, WandbLogger) and ranks.is_first():
            _define(logger, [str(options["model"]["name"]), str(options["cascade"]["name"]), f"n={n}"])


def _define(logger: WandbLogger, tags: Sequence[str]) -> None:
    run = logger.experiment
    for name, best in BEST.items():
        run.define_metric(name, step_metric=STEP, summary=best)
    run.tags = tuple(dict.fromkeys([*(run.tags or ()), *tags]))
