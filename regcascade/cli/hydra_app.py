"""Shared parts of the commands: error messages of one line, configs as plain values, the record of a run."""

import contextlib
import errno
import gc
import json
import logging
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console

from regcascade.cli.run_folder import in_sweep, register_resolvers
from regcascade.report.paper.experiments import CONF
from regcascade.utils.files import git_state, written_whole
from regcascade.utils.registry import did_you_mean

# Deprecations inside our dependencies, which no user can act on.
for message in ("monai.metrics.utils get_mask_edges", "`isinstance.treespec, LeafSpec.` is deprecated"):
    warnings.filterwarnings("ignore", message=f".*{message}", category=FutureWarning)
logging.getLogger("alembic").setLevel(logging.WARNING)  # which Optuna brings, and which lists its own plugins
for connector in ("checkpoint_connector", "logger_connector.logger_connector", "callback_connector"):
    logging.getLogger(f"lightning.pytorch.trainer.connectors.{connector}").setLevel(logging.WARNING)


class _ToStderr(logging.StreamHandler[Any]):
    """Print Lightning's messages to the present stderr, without its hints at other products."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        if "Tip:" not in record.getMessage():
            self.stream = sys.stderr
            super().emit(record)


# Hydra gives the root logger a handler before Lightning is imported, so that every message would come twice.
logging.getLogger("lightning").propagate = False
for package in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(package).propagate = False
    logging.getLogger(package).addHandler(_ToStderr())

_PLUGINS = {
    "sweeper/optuna": "-c constraints.txt -e '.[sweep]'",
    "launcher/joblib": "hydra-joblib-launcher",
    "launcher/submitit_slurm": "-c constraints.txt -e '.[slurm]'",
    "launcher/submitit_local": "-c constraints.txt -e '.[slurm]'",
}
_FULL_ERROR = "HYDRA_FULL_ERROR"
_OURS = "REGCASCADE_SET_FULL_ERROR"  # tells processes that inherit the former that we set it, not the user


class LostProcessError(ValueError):
    """Another process of the same command is gone."""


class Terminated(SystemExit):
    """SIGTERM ended a training: exit with 143, as shells do, after printing a text."""

    def __init__(self, text: str) -> None:
        super().__init__(128 + 15)
        self.text = text


at_end: list[Callable[[], bool]] = []  # called at the end of `command`, also after an error: the report on a sweep

register_resolvers()


def command(main: Callable[[], Any]) -> None:
    """Run a Hydra command. A user's error ends it with one line on stderr and status 1, SIGTERM with status 143.

    Any other error shows its traceback; with HYDRA_FULL_ERROR=1 every error does.
    """
    show = _shows_all()
    before = {name: os.environ.get(name) for name in (_FULL_ERROR, _OURS)}
    os.environ[_FULL_ERROR] = "1"  # so that Hydra raises errors instead of printing them
    if not show:
        os.environ[_OURS] = "1"
    try:
        with contextlib.nullcontext() if show else clear_errors():
            main()
    except Terminated as end:
        if _is_first_rank():  # every rank gets the signal
            _print_error(end.text)
        raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        complete = [at_end.pop()() for _ in range(len(at_end))]
    if not all(complete):
        sys.exit(1)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Print a user's error as one line on stderr, and exit with status 1."""
    try:
        yield
    except Exception as error:
        text = reason(error)
        if text is None:
            raise
        _print_error(text, error)
        sys.exit(1)


def job(work: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """Do the work of one job, and say a user's error before Hydra adds a line of its own.

    In a sweep an error ends its job only, and what the job leaves is freed: a Lightning module and its trainer hold
    each other. Jobs of a launcher that starts processes raise their errors in the command's own process.
    """
    sweep = in_sweep()
    try:
        return work(config)
    except Exception as error:
        text = reason(error)
        if text is None or _shows_all() or (sweep and "BasicLauncher" not in str(HydraConfig.get().launcher._target_)):
            raise
        _print_error(f"Job #{HydraConfig.get().job.num}: {text}" if sweep else text, error)
        if not sweep:
            sys.exit(1)
        at_end.append(lambda: False)
        return None
    finally:
        if sweep:
            gc.collect()


def reason(error: Exception) -> str | None:
    """Describe a user's error in one line; None for any other error, which is a defect."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: give it as {error.full_key}=VALUE."
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        quoted = shlex.quote(f'{key}="{value}"')
        return f"{error.override} is no KEY=VALUE. Quote a text twice, for the shell and within for Hydra: {quoted}"
    if isinstance(error, ConfigCompositionException):
        return _config_error(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{str(error.filename)[:80]}... is too long to name a file."
    if isinstance(error, OSError) and last and last[0].name == "mkdir":
        return f"The folder {error.filename} cannot be made ({error.strerror}). Give another (paths.runs, paths.run)."
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        what = str(error).partition("\n")[0]
        return f"Not enough memory ({what}). Choose a smaller size, batch or n; regcascade profile estimates a step."
    if "Config group override must be" in str(error):
        pairs = [word.lstrip("+").partition("=") for word in sys.argv[1:]]
        given = [f"{key}={value}" for key, _, value in pairs if value == "null" and (CONF / key.split("@")[0]).is_dir()]
        return f"{', '.join(given) or error}: a group takes the name of a file of it, a list of them, or [] for none."
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, ValueError | OSError):
        error = error.__cause__
    if not isinstance(error, (ValueError, FileNotFoundError, HydraException, OmegaConfBaseException, *_of_training())):
        return None
    caught = str(error).startswith("Caught ")  # in a process that reads scans, whose traceback comes with it
    return re.split(r"^[\w.]*Error: ", str(error), flags=re.MULTILINE)[-1].strip() if caught else str(error)


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config into plain values."""
    options = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in options.items()}  # type: ignore[union-attr]  # a mapping


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


def _config_error(error: ConfigCompositionException) -> str:
    """Return Hydra's message; for an unknown option or a missing plugin our own."""
    for plugin, package in _PLUGINS.items():
        if f"Could not find 'hydra/{plugin}'" in str(error):
            return f"hydra/{plugin.replace('/', '=')} needs a plugin: pip install {package}."
    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException) or not isinstance(cause.parent_node, DictConfig):
        return str(error)
    known = [str(key) for key in cause.parent_node]
    key = str(cause.key)
    return f"There is no option {cause.full_key}. Known: {', '.join(sorted(known))}.{did_you_mean(key, known)}"


def _shows_all() -> bool:
    """Whether the user wants to see the traceback of every error."""
    return os.environ.get(_FULL_ERROR) == "1" and _OURS not in os.environ


def _of_training() -> tuple[type[Exception], ...]:
    """Return the classes of users' errors that all ranks raise; none before Lightning is imported."""
    if "lightning" not in sys.modules:
        return ()
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from regcascade.training.module import NonFiniteLossError

    return NonFiniteLossError, MisconfigurationException


def _is_first_rank() -> bool:
    from regcascade.utils.distributed import is_first  # which imports torch

    return is_first()


def _print_error(text: str, error: Exception | None = None) -> None:
    if isinstance(error, (LostProcessError, *_of_training())) and not _is_first_rank():
        return
    text = " ".join(line.strip() for line in text.splitlines())
    console = Console(stderr=True, soft_wrap=True)
    console.print("[bold red]Error:[/]", text.replace("[", "\\["), highlight=False)
