"""What the Hydra entry points share: one clear line per error, what a config may have made, the record of a run."""

import contextlib
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console

from regcascade.cli.failures import TERMINATED, LostProcessError
from regcascade.cli.sweep import finish_sweep
from regcascade.report.paper.experiments import CONF
from regcascade.training.loggers.wandb_run import wandb_logger
from regcascade.training.module import NonFiniteLossError
from regcascade.utils import distributed as ranks
from regcascade.utils.files import git_state, written_whole
from regcascade.utils.registry import did_you_mean, user_file_module

# Deprecations between the libraries we stand on, which no user of ours can act on, and hints at other products.
for message in ("monai.metrics.utils get_mask_edges", "`isinstance.treespec, LeafSpec.` is deprecated"):
    warnings.filterwarnings("ignore", message=f".*{message}", category=FutureWarning)
logging.getLogger("alembic").setLevel(logging.WARNING)  # which Optuna brings, and which lists its own plugins
for connector in ("checkpoint_connector", "logger_connector.logger_connector", "callback_connector"):
    logging.getLogger(f"lightning.pytorch.trainer.connectors.{connector}").setLevel(logging.WARNING)

INSTANTIABLE = (
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "regcascade.training.callbacks.",
    "regcascade.training.loggers.",
)
_TARGETS_OF_0_1 = {  # where the config.yaml of a run of version 0.1 finds what it names
    "regcascade.averaging.AveragedWeights": "regcascade.training.callbacks.ema.AveragedWeights",
    "regcascade.callbacks.PictureCallback": "regcascade.training.callbacks.pictures.PictureCallback",
    "regcascade.callbacks.StopReason": "regcascade.training.callbacks.stop_reason.StopReason",
    "regcascade.monitors.GradientNorm": "regcascade.training.callbacks.monitors.GradientNorm",
    "regcascade.monitors.PeakMemory": "regcascade.training.callbacks.monitors.PeakMemory",
    "regcascade.monitors.Throughput": "regcascade.training.callbacks.monitors.Throughput",
    "regcascade.report.loggers.MetricsFile": "regcascade.training.loggers.metrics_file.MetricsFile",
    "regcascade.report.loggers.wandb_logger": "regcascade.training.loggers.wandb_run.wandb_logger",
    "regcascade.stopping.StopWithoutGain": "regcascade.training.callbacks.early_stopping.StopWithoutGain",
}
_PLUGINS = {
    "sweeper/optuna": "-c constraints.txt -e '.[sweep]'",
    "launcher/joblib": "hydra-joblib-launcher",
    "launcher/submitit_slurm": "-c constraints.txt -e '.[slurm]'",
    "launcher/submitit_local": "-c constraints.txt -e '.[slurm]'",
}
USER_ERRORS = (ValueError, FileNotFoundError, NonFiniteLossError, MisconfigurationException)
ON_ALL_RANKS = (NonFiniteLossError, LostProcessError, MisconfigurationException)  # rank 0 says them for all
_FULL_ERROR = "HYDRA_FULL_ERROR"
_OURS = "REGCASCADE_SET_FULL_ERROR"  # marks that we have set the former, for processes that inherit it


def command(main: Callable[[], Any]) -> None:
    """Run a Hydra command; an error of the user's ends it with one line on stderr and status 1.

    Anything else shows its traceback, and HYDRA_FULL_ERROR=1 shows it for every error. A training that SIGTERM has
    ended says so and exits with 143.
    """
    show = os.environ.get(_FULL_ERROR) == "1" and _OURS not in os.environ
    before = {name: os.environ.get(name) for name in (_FULL_ERROR, _OURS)}
    os.environ[_FULL_ERROR] = "1"  # Hydra then hands errors on instead of printing them itself
    if not show:
        os.environ[_OURS] = "1"
    try:
        complete = False
        try:
            with contextlib.nullcontext() if show else clear_errors():
                main()
        except SIGTERMException as end:
            _fail(str(end) or "Ended by SIGTERM.", TERMINATED)
        finally:
            complete = finish_sweep(Console())  # of which some job may have ended it all, and others have finished
        if not complete:
            sys.exit(1)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn an error of the user's into one line on stderr and exit status 1."""
    try:
        yield
    except Exception as error:
        text = reason(error)
        if text is None:
            raise
        if isinstance(error, ON_ALL_RANKS) and not ranks.is_first():
            sys.exit(1)
        _fail(text)


def reason(error: Exception) -> str | None:
    """An error of the user's in one line; None for any other, which is a defect."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: give it as {error.full_key}=VALUE."
    if isinstance(error, ConfigCompositionException):
        return _config_error(error)
    if text := _bare(error):
        return text
    if isinstance(error, InstantiationException):
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return str(error) if isinstance(error, USER_ERRORS) else None


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain values, everything resolved."""
    options = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in options.items()}  # type: ignore[union-attr]  # a mapping


def built(configs: Mapping[str, Any] | None, imports: Sequence[str] = ()) -> list[Any]:
    """The loggers or callbacks of a config group, less those that are null.

    Only Lightning's loggers and callbacks, ours, and those of the modules the user imports are made: a config of
    somebody else's, such as the one in the folder of a run to resume, cannot name any other code to run.
    """
    files = {Path(module).stem: user_file_module(module) for module in imports if module.endswith(".py")}
    allowed = (*INSTANTIABLE, *(f"{module}." for module in [*files.values(), *imports] if not module.endswith(".py")))
    given = {name: _found(config, files) for name, config in (configs or {}).items() if config is not None}
    for name, config in given.items():
        target, *nested = list(_targets(config)) or [None]
        if nested or not str(target).startswith(allowed) or not _is_harmless(get_object(str(target))):
            raise ValueError(
                f"{name}: its _target_ is {', '.join(map(str, [target, *nested]))}, and it must be one logger or "
                f"callback of {', '.join(allowed)}."
            )
    return [instantiate(config) for config in given.values()]


def record_run(folder: Path, config: DictConfig) -> None:
    """Write the resolved config and the git state of the code into a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "config.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(config, resolve=True))
    state = git_state()
    difference = state.pop("difference")
    (folder / "git.json").write_text(json.dumps(state, indent=2) + "\n")
    if difference:
        (folder / "git.diff").write_text(difference)


def _is_harmless(target: Any) -> bool:
    return target is wandb_logger or (isinstance(target, type) and issubclass(target, Callback | Logger))


def _found(config: Any, files: Mapping[str, str]) -> Any:
    """A config whose `_target_` is where it is today: in the module that a Python file of `imports` was loaded as, or
    where a later version has moved it."""
    if not isinstance(config, Mapping):
        return config
    target = str(config.get("_target_", ""))
    stem, _, rest = target.partition(".")
    today = f"{files[stem]}.{rest}" if stem in files else _TARGETS_OF_0_1.get(target)
    return {**config, "_target_": today} if today else config


def _targets(config: Any) -> Iterator[Any]:
    """Every `_target_` in nested plain values."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_":
                yield value
            yield from _targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _targets(value)


def _bare(error: Exception) -> str | None:
    """Of an error that names no option, what it is about: a folder that cannot be made, a group that is null."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    if isinstance(error, OSError) and last and last[0].name == "mkdir":
        return f"The folder {error.filename} cannot be made ({error.strerror}). Give another (paths.runs, paths.run)."
    if "Config group override must be" in str(error):
        pairs = [word.lstrip("+").partition("=") for word in sys.argv[1:]]
        given = [f"{key}={value}" for key, _, value in pairs if value == "null" and (CONF / key.split("@")[0]).is_dir()]
        return f"{', '.join(given) or error}: a group takes the name of a file of it, a list of them, or [] for none."
    return None


def _config_error(error: ConfigCompositionException) -> str:
    """What Hydra says, and for a key that does not exist the ones that do."""
    for plugin, package in _PLUGINS.items():
        if f"Could not find 'hydra/{plugin}'" in str(error):
            return f"hydra/{plugin.replace('/', '=')} needs a plugin of Hydra's: pip install {package}."
    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException) or not isinstance(cause.parent_node, DictConfig):
        return str(error)
    known = [str(key) for key in cause.parent_node]
    key = str(cause.key)
    return f"There is no option {cause.full_key}. Known: {', '.join(sorted(known))}.{did_you_mean(key, known)}"


def _fail(text: str, status: int = 1) -> None:
    if status == 1 or ranks.is_first():  # a signal goes to all ranks
        console = Console(stderr=True, soft_wrap=True)
        console.print("[bold red]Error:[/]", text.replace("[", "\\["), highlight=False)
    sys.exit(status)
