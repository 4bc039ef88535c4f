"""What the Hydra entry points share: run folders, plain options, the record of a run, one clear line per error."""

import contextlib
import datetime
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console

from regcascade.files import git_state
from regcascade.module import NonFiniteLossError
from regcascade.registry import import_user_modules

# Deprecations between the libraries we stand on, which no user of ours can act on.
for message in ("monai.metrics.utils get_mask_edges", "`isinstance.treespec, LeafSpec.` is deprecated"):
    warnings.filterwarnings("ignore", message=f".*{message}", category=FutureWarning)

INSTANTIABLE = (
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "regcascade.callbacks.",
    "regcascade.report.loggers.",
)
LONGEST_FOLDER_NAME = 150


def register_resolvers() -> None:
    """Make `run_folder` and `job_folder` known to OmegaConf, for the hydra section of the configs."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def run_folder(runs: str, ckpt_path: str | None) -> str:
    """The folder of a run: a new one named by date and time, or that of the run to resume."""
    resumed = resumed_checkpoint(runs, ckpt_path) if ckpt_path else None
    if resumed is not None and (folder := owner(resumed)) is not None:
        return str(folder)
    now = datetime.datetime.now()
    folder = Path(runs) / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}"
    taken = 2
    while folder.exists():
        folder = folder.with_name(f"{now:%H-%M-%S}-{taken}")
        taken += 1
    return str(folder)


def job_folder(number: int, overrides: str) -> str:
    """The folder of one job of a sweep: its number and overrides, in characters that any shell takes unquoted."""
    name = re.sub(r"[^\w.+-]+", "-", f"{number}_{overrides}").strip("-_")
    return name[:LONGEST_FOLDER_NAME]


def resumed_checkpoint(runs: str | Path, ckpt_path: str) -> Path | None:
    """The checkpoint file to resume: that of the newest run for `last`; None where there is no such file."""
    if ckpt_path != "last":
        return Path(ckpt_path) if Path(ckpt_path).is_file() else None
    found = sorted(Path(runs).glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def owner(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it does."""
    folder = checkpoint.parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain values, everything resolved."""
    options = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in options.items()}  # type: ignore[union-attr]


def built(configs: Mapping[str, Any] | None, imports: Sequence[str] = ()) -> list[Any]:
    """The loggers or callbacks of a config group.

    Only classes of Lightning, of this package and of the modules the user imports can be made: a config of somebody
    else's, such as the one in the folder of a run to resume, cannot name any other code to run.
    """
    allowed = (*INSTANTIABLE, *(f"{module}." for module in imports))
    for name, config in (configs or {}).items():
        for target in _targets(config):
            if not str(target).startswith(allowed):
                raise ValueError(f"{name}._target_={target}: only classes of {', '.join(allowed)} can be made.")
    return [instantiate(config) for config in (configs or {}).values()]


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


def record_run(folder: Path, config: DictConfig) -> None:
    """Write the resolved config and the git state of the working directory's code into a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    state = git_state()
    difference = state.pop("difference")
    (folder / "git.json").write_text(json.dumps(state, indent=2) + "\n")
    if difference:
        (folder / "git.diff").write_text(difference)


def with_clear_errors(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Import the user's modules, run a Hydra task, and end it with one line and status 1 for an error of the user's.

    In a sweep the error goes on to Hydra, which must know that the job failed. HYDRA_FULL_ERROR=1 shows tracebacks.
    """

    @wraps(task)
    def run(config: DictConfig) -> Any:
        with clear_errors():
            import_user_modules(config.imports)
            return task(config)

    return run


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn an error of the user's into one line on stderr and exit status 1."""
    try:
        yield
    except MissingMandatoryValue as error:
        _fail(ValueError(f"{error.full_key or 'a value'} is missing: give it as {error.full_key}=VALUE."))
    except (ValueError, FileNotFoundError, NonFiniteLossError, MisconfigurationException) as error:
        _fail(error)


def _fail(error: Exception) -> None:
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if in_sweep or os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/] {_escaped(str(error))}", highlight=False)
    sys.exit(1)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
