"""The page of a run on W&B without hand work: its config, name, group and tags, and the best of each measure."""

import netrc
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from regcascade.report.runs.sweeps import SWEEP, described, overrides_of, swept_by
from regcascade.utils import distributed as ranks

# What WANDB_MODE may say, by what it means for us.
_WANDB_MODES = {
    "online": "online",
    "run": "online",
    "shared": "shared",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}

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


def wandb_mode() -> str:
    """How Weights & Biases is to run: `online` if a key is configured, `offline` if not; never a prompt.

    WANDB_MODE, where set, decides. A key is looked for where wandb itself looks: WANDB_API_KEY, its settings,
    the netrc file. Nothing is sent to find out.

    Raises:
        ValueError: if WANDB_MODE is no mode, or asks for a connection and there is no key.
    """
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked and asked not in _WANDB_MODES:
        raise ValueError(f"WANDB_MODE={asked} is not valid. Known: {', '.join(_WANDB_MODES)}.")
    mode = _WANDB_MODES.get(asked, "online")
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
    """A Weights & Biases logger in the mode `wandb_mode` finds; its files go to `<save_dir>/wandb`.

    A folder that holds a W&B run already (one that is resumed) continues that run.

    Args:
        save_dir: the run folder.
        project: W&B's project.
        name: what the run is called there; by default by its overrides, see `dashboard.run_name`.
        group: runs to show together; by default those of its sweep.
        tags: words to find the run by, beside its model, cascade and n.
        entity: the user or team it belongs to.
        id: of the W&B run; by default a new one, or that of the run resumed.

    Raises:
        ValueError: for what `wandb_mode` raises.
    """
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    previous = _previous_wandb_id(folder)
    return WandbLogger(
        save_dir=folder,
        project=project,
        name=name or (None if previous else run_name(folder)),  # a resumed run keeps its name
        group=group or group_of(folder),
        job_type=JOB_TYPE,
        tags=tags,
        entity=entity,
        id=id or previous,
        mode=wandb_mode(),
    )


def close_loggers(loggers: Iterable[Logger], failed: bool = False) -> None:
    """End what loggers keep open after a fit, so that the next job of a sweep starts its own.

    W&B would otherwise log the next job of the same process into this one's run.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger) and ranks.is_first():
            logger.experiment.finish(exit_code=int(failed))
        elif isinstance(logger, TensorBoardLogger) and ranks.is_first():
            logger.experiment.close()


def _has_wandb_key() -> bool:
    """Whether wandb will find credentials; its own `login` would ask the server who we are."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    hosts = [urlsplit(settings.base_url).netloc]
    if settings.base_url == wandb.Settings().base_url:
        hosts.append("api.wandb.ai")  # where `wandb login` put the key while this was the default server
    return any(_in_netrc(host) for host in hosts)


def _in_netrc(host: str) -> bool:
    default = next((file for name in (".netrc", "_netrc") if (file := Path.home() / name).is_file()), None)
    path = os.environ.get("NETRC") or default
    try:
        found = netrc.netrc(path).authenticators(host) if path else None
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])


def _previous_wandb_id(folder: Path) -> str | None:
    """The id of the W&B run that a run folder holds; its folders are called `[offline-]run-<time>-<id>`."""
    found = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.name.split("run-", 1)[1])
    return found[-1].name.rsplit("-", 1)[1] if found else None
