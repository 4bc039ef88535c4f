"""Run on Weights & Biases: its mode, name, group, tags, config, and the summary of each measure."""

import netrc
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from regcascade.evaluation.layout import read_yaml
from regcascade.report.runs.names import titled, what_is
from regcascade.report.runs.sweeps import SWEEP, overrides_of, swept_by
from regcascade.utils import distributed as ranks

_WANDB_MODES = ("online", "run", "shared", "offline", "dryrun", "disabled")
_SAME_MODES = {"": "online", "run": "online", "dryrun": "offline"}

STEP = "trainer/global_step"  # Lightning's name
LONGEST_NAME = 120  # W&B takes 128
# Summary of each measure over the steps, for W&B's table of runs.
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
    """Name a run by what it is and its overrides (in a sweep those that vary), or by its folder if neither is known."""
    overrides = {key: value for key, value in overrides_of(folder).items() if not key.startswith(_NOT_NAMING)}
    swept = [key for key in swept_by(folder.parent) if key in overrides]
    composed = folder / ".hydra/config.yaml"  # there before any logger
    what = what_is(read_yaml(composed, "") if composed.is_file() else {})
    name = titled(what.title, overrides, swept or list(overrides))
    return name[:LONGEST_NAME] or "/".join(folder.resolve().parts[-2:])


def group_of(folder: Path) -> str | None:
    """Name the sweep of a run by the last two parts of its folder; None if the run is no job of a sweep."""
    return "/".join(folder.resolve().parts[-3:-1]) if (folder.parent / SWEEP).is_file() else None


def begin_logging(loggers: Sequence[Logger], options: Mapping[str, Any], n: int, parameters: int) -> None:
    """Log the config, the number n of deformable stages and the number of parameters.

    On W&B also define the measures, and add the tags model, cascade and n.
    """
    for logger in loggers:
        logger.log_hyperparams({**options, "stages": n, "parameters": parameters})
        if isinstance(logger, WandbLogger) and ranks.is_first():
            run = logger.experiment
            for name, best in BEST.items():
                run.define_metric(name, step_metric=STEP, summary=best)
            tags = (str(options["model"]["name"]), str(options["cascade"]["name"]), f"n={n}")
            run.tags = tuple(dict.fromkeys([*(run.tags or ()), *tags]))


def wandb_mode() -> str:
    """Choose the mode of W&B: that of WANDB_MODE, else `online` if there is an API key and `offline` if not.

    Looks for the key where wandb does: WANDB_API_KEY, its settings, the netrc file. Sends nothing and never prompts.

    Raises:
        ValueError: if WANDB_MODE is invalid, or asks for a connection and there is no key.
    """
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked and asked not in _WANDB_MODES:
        raise ValueError(f"WANDB_MODE={asked} is not valid. Known: {', '.join(_WANDB_MODES)}.")
    mode = _SAME_MODES.get(asked, asked)
    if mode in ("offline", "disabled") or _has_wandb_key():
        return mode
    if asked:
        raise ValueError(
            f"WANDB_MODE={asked} needs an API key: set WANDB_API_KEY or run `wandb login`, or leave "
            "WANDB_MODE out to log offline."
        )
    return "offline"


def wandb_logger(
    save_dir: str | Path,
    project: str = "regcascade",
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    entity: str | None = None,
    id: str | None = None,
) -> WandbLogger:
    """Make a W&B logger in the mode of `wandb_mode`; it continues the W&B run that the run folder holds, if any.

    The run is named by `run_name` and grouped by its sweep, unless `name` and `group` are given. Tags are added to
    model, cascade and n.

    Raises:
        ValueError: see `wandb_mode`.
    """
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # W&B's folders are called [offline-]run-<time>-<id>.
    found = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.name.split("run-", 1)[1])
    previous = found[-1].name.rsplit("-", 1)[1] if found else None
    return WandbLogger(
        save_dir=folder,
        project=project,
        name=name or (None if previous else run_name(folder)),  # a resumed run keeps its name
        group=group or group_of(folder),
        job_type="train",
        tags=tags,
        entity=entity,
        id=id or previous,
        mode=wandb_mode(),
    )


def close_loggers(loggers: Iterable[Logger], failed: bool = False) -> None:
    """Close W&B and TensorBoard runs; W&B would otherwise log the next job of a sweep into this run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and ranks.is_first():
            logger.experiment.finish(exit_code=int(failed))
        elif isinstance(logger, TensorBoardLogger) and ranks.is_first():
            logger.experiment.close()


def _has_wandb_key() -> bool:
    """Tell whether wandb will find credentials, without the request that `wandb.login` sends."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    hosts = [urlsplit(settings.base_url).netloc]
    if settings.base_url == wandb.Settings().base_url:
        hosts.append("api.wandb.ai")  # where `wandb login` put the key while this was the default server
    files = (Path.home() / name for name in (".netrc", "_netrc"))
    try:
        keys = netrc.netrc(os.environ.get("NETRC") or next(str(file) for file in files if file.is_file()))
    except (StopIteration, OSError, netrc.NetrcParseError):
        return False
    return any((found := keys.authenticators(host)) and found[2] for host in hosts)
