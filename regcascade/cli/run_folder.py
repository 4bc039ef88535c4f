"""Run folders: where a run writes, which one is resumed, and the config it goes on with."""

import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from regcascade.report.runs.sweeps import shown_value, swept_by
from regcascade.utils.diff import differences
from regcascade.utils.files import claimed
from regcascade.utils.launch import from_first_rank, is_first_starter, launched

LONGEST_FOLDER_NAME = 150


def register_resolvers() -> None:
    """Make `run_folder`, `job_folder` and `first_rank` known to OmegaConf, for the hydra section of the configs."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("first_rank", _for_first_rank, replace=True)


def run_folder(runs: str, ckpt_path: str | None) -> str:
    """Name the folder of a run by date and time, or find that of the run to resume; all ranks get the same."""
    return from_first_rank("run_folder", lambda: _run_folder(runs, ckpt_path))


def _for_first_rank(own: str, other: str | None) -> str | None:
    return own if is_first_starter() else other


def _run_folder(runs: str, ckpt_path: str | None) -> str:
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


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a run folder and lock it against other trainings; rank 0 does so for all.

    Raises:
        ValueError: if another training has the lock.
    """
    if not is_first_starter():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder / "training") as mine:
        if not mine:
            raise ValueError(
                f"Another process trains in {folder}: wait until it has ended, or stop it; then ckpt_path=last resumes "
                "its last checkpoint."
            )
        yield


def job_folder(number: int, overrides: str, sweep: str = "") -> str:
    """Name the folder of a job by its number and overrides, in characters that no shell wants quoted.

    Where the folder of the sweep tells what it varies, only those overrides count.
    """
    if sweep and HydraConfig.initialized() and (keys := swept_by(Path(sweep))):
        given = [one.lstrip("+").partition("=") for one in HydraConfig.get().overrides.task]
        overrides = "_".join(f"{key}={shown_value(value)}" for key, _, value in given if key in keys)
    name = re.sub(r"[^\w.+]+", "-", f"{number}_{overrides}").strip("-_")
    return name[:LONGEST_FOLDER_NAME]


def resumed_checkpoint(runs: str | Path, ckpt_path: str) -> Path | None:
    """Find the checkpoint file to resume, for `last` that of the newest run; None where there is none."""
    if ckpt_path != "last":
        return Path(ckpt_path) if Path(ckpt_path).is_file() else None
    found = sorted(Path(runs).glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def owner(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it does."""
    folder = checkpoint.parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def composed(conf: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the config of `train` or `evaluate` as plain values, interpolations unresolved."""
    register_resolvers()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        config = OmegaConf.to_container(compose(name, list(overrides)))
    return {str(key): value for key, value in config.items()}  # type: ignore[union-attr]  # a mapping


def in_sweep() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def check_devices(devices: int, option: str = "trainer.devices") -> None:
    """Refuse several devices in a sweep whose launcher does not start a process for each.

    Lightning starts other ranks by running the command again, which would be the whole sweep.
    """
    if devices == 1 or not in_sweep():
        return
    if "submitit" not in str(HydraConfig.get().launcher.get("_target_")):
        raise ValueError(
            f"{option}={devices} in a sweep (-m): every rank would start the sweep anew. Launch the jobs with "
            "Hydra's submitit launcher (hydra/launcher=submitit_slurm), or one by one under torchrun."
        )
    if launched() is None:
        raise ValueError(
            f"{option}={devices} in a job of submitit's that has one process: set hydra.launcher.tasks_per_node to the "
            "devices of a machine, and hydra.launcher.nodes where there are several."
        )


def to_resume(config: DictConfig) -> Path | None:
    """Find the checkpoint that a config asks to resume; a job of a resumed sweep has its own.

    Returns:
        The file; None where a new run starts.

    Raises:
        ValueError: if there is no such file.
    """
    own = Path(config.paths.run) / "checkpoints" / "last.ckpt"
    if config.ckpt_path is None:
        return own if in_sweep() and own.is_file() else None
    if in_sweep():
        raise ValueError("ckpt_path resumes one run; a sweep (-m) starts new ones. Leave one of the two out.")
    # All ranks already agree on the run folder of `last`; another run may have written a newer checkpoint since.
    if config.ckpt_path == "last" and own.is_file():
        return own
    resumed = resumed_checkpoint(config.paths.runs, config.ckpt_path)
    if resumed is None:
        where = f"under {config.paths.runs}/" if config.ckpt_path == "last" else f"at {config.ckpt_path}"
        raise ValueError(f"ckpt_path={config.ckpt_path}: there is no checkpoint {where} to resume.")
    return resumed


def config_of_resumed(config: DictConfig, resumed: Path) -> tuple[DictConfig, list[str]]:
    """Take the config that a run was started with, and set the single values of this command line.

    The `imports` stay those of this command line: to resume somebody else's run imports nothing unasked.

    Returns:
        The config, and each change in words.

    Raises:
        ValueError: if the stored config is none, or the command line chooses another group.
    """
    folder = owner(resumed)
    if folder is None or in_sweep():  # the command of a sweep has told the job its whole config
        return config, []
    stored = OmegaConf.load(folder / "config.yaml")
    if isinstance(stored, ListConfig) or "paths" not in stored:
        raise ValueError(f"{folder / 'config.yaml'} is not the config of a run.")
    stored = _moved(stored, str(stored.paths.run), str(config.paths.run))
    started = stored.copy()
    if HydraConfig.initialized():
        groups = set(HydraConfig.get().runtime.choices)
        for override in HydraConfig.get().overrides.task:
            _override(stored, config, override, groups)
    stored.paths, stored.imports = config.paths, config.imports
    return stored, list(differences(OmegaConf.to_container(started), OmegaConf.to_container(stored)))


def _override(stored: DictConfig, config: DictConfig, override: str, groups: set[str]) -> None:
    key = override.lstrip("+").split("=", 1)[0]
    if override.startswith("~") or key.split("@")[0] in groups or OmegaConf.is_dict(OmegaConf.select(stored, key)):
        raise ValueError(
            f"{override}: a resumed run keeps the {key.lstrip('~')} it was started with; set single values only."
        )
    OmegaConf.update(stored, key, OmegaConf.select(config, key), force_add=True)


def _moved(config: DictConfig, old: str, new: str) -> DictConfig:
    """Replace every path in the old run folder, in case the folder was moved or copied."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [replaced(inner) for inner in value]
        return new + value[len(old) :] if isinstance(value, str) and value.startswith(old) else value

    return OmegaConf.create(replaced(OmegaConf.to_container(config)))
