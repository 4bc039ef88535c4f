"""Run folders: their names, which one is resumed, and the config of a resumed run."""

import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from regcascade.report.paper.experiments import CONF
from regcascade.report.runs.sweeps import shown_value, swept_by
from regcascade.utils.config_diff import differences
from regcascade.utils.files import claimed, parse_yaml
from regcascade.utils.launch import from_first_rank, is_first_starter, launched
from regcascade.utils.registry import did_you_mean

LONGEST_FOLDER_NAME = 150
_GLOBAL = {"paper", "experiment", "scale", "sweep", "debug"}  # groups whose files set options of others
_MAY_BE_MISSING = {"logger", "callbacks"}  # logger=[] leaves no key


def register_resolvers() -> None:
    """Register the resolvers of the configs: `run_folder`, `job_folder`, `first_rank`, `of_paper` (scale=paper)."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("of_paper", lambda cascade, dr, rcn: dr if cascade == "mcr" else rcn, replace=True)
    OmegaConf.register_new_resolver("first_rank", lambda own, other: own if is_first_starter() else other, replace=True)


def run_folder(runs: str, ckpt_path: str | None) -> str:
    """Name a new run folder by date and time, or find that of the run to resume; the same on all ranks."""

    def find() -> str:
        resumed = resumed_checkpoint(runs, ckpt_path) if ckpt_path else None
        if resumed is not None and (folder := owner(resumed)) is not None:
            return str(folder)
        now = datetime.datetime.now()
        folder = Path(runs) / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}"
        number = 2
        while folder.exists():
            folder = folder.with_name(f"{now:%H-%M-%S}-{number}")
            number += 1
        return str(folder)

    return from_first_rank("run_folder", find)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a run folder and lock it, on rank 0; raise ValueError if another training has the lock."""
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
    """Name the folder of a job by its number and the overrides that its sweep varies, without characters to quote."""
    if sweep and HydraConfig.initialized() and (keys := swept_by(Path(sweep))):
        given = [one.lstrip("+").partition("=") for one in HydraConfig.get().overrides.task]
        overrides = "_".join(f"{key}={shown_value(value)}" for key, _, value in given if key in keys)
    name = re.sub(r"[^\w.+]+", "-", f"{number}_{overrides}").strip("-_")
    return name[:LONGEST_FOLDER_NAME]


def resumed_checkpoint(runs: str | Path, ckpt_path: str) -> Path | None:
    """Find the checkpoint to resume, for `last` that of the newest run; None if there is none."""
    if ckpt_path != "last":
        return Path(ckpt_path) if Path(ckpt_path).is_file() else None
    found = Path(runs).glob("**/checkpoints/last.ckpt")
    return max(found, key=lambda path: (path.stat().st_mtime, path), default=None)


def owner(checkpoint: Path) -> Path | None:
    """Find the run folder of a checkpoint; None if it lies in none."""
    folder = checkpoint.parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def composed(conf: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the config of `train` or `evaluate` as plain values, with RUN as its folder."""
    register_resolvers()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        config = compose(name, list(overrides))
    config.paths.run = "RUN"  # in place of Hydra's own folder, which only a job has
    options = OmegaConf.to_container(config, resolve=True)
    return {str(key): value for key, value in options.items()}  # type: ignore[union-attr]  # a mapping


def in_sweep() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def set_options(group: str) -> set[str]:
    """Name the options of a group that the command line sets."""
    task = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    keys = [one.lstrip("+~").partition("=")[0].split(".") for one in task]
    return {key[1] for key in keys if key[0] == group and len(key) > 1}


def check_keys(config: DictConfig, command: str) -> None:
    """Check the keys that no group checks against `conf/<command>.yaml`.

    Raises:
        ValueError: for a missing key (`~n`), or one that is not listed (`+foo=1`) and that no interpolation refers to.
    """
    listed = cast(DictConfig, OmegaConf.load(CONF / f"{command}.yaml"))
    groups = {str(group) for one in listed.defaults if one != "_self_" for group in one} - _GLOBAL
    own = ({str(key) for key in listed} - {"defaults", "hydra"}) | groups
    parts: list[tuple[str, Any, set[str]]] = [("", config, own)]
    of_dict = [key for key in sorted(own & set(listed)) if OmegaConf.is_dict(listed[key])]
    parts += [(f"{key}.", config[key], set(listed[key])) for key in of_dict]
    if HydraConfig.initialized():
        parts.append(("hydra.", HydraConfig.get(), {*OmegaConf.structured(HydraConf), "env"}))
    text = OmegaConf.to_yaml(config)
    for prefix, given, known in parts:
        if unknown := [str(key) for key in given if key not in known and f"${{{prefix}{key}" not in text]:
            hint = did_you_mean(unknown[0], known)
            raise ValueError(f"There is no option {prefix}{unknown[0]}. Known: {', '.join(sorted(known))}.{hint}")
    if missing := sorted(own - set(config) - _MAY_BE_MISSING):
        raise ValueError(f"{missing[0]} is missing: leave ~{missing[0]} out.")


def check_devices(devices: int, option: str = "trainer.devices") -> None:
    """Raise ValueError for several devices in a sweep whose launcher does not start a process for each.

    Lightning would start the other ranks by the command of the whole sweep.
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
    """Find the checkpoint that a config resumes; None for a new run. A job of a resumed sweep resumes its own."""
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
    """Load the config of a resumed run, and set the single values of this command line in it.

    `imports` are those of this command line, so that resuming another user's run imports nothing unasked. Returns the
    config, and each change in words. Raises ValueError if that is no config of a run, or if the command line chooses
    another group.
    """
    folder = owner(resumed)
    if folder is None or in_sweep():  # the command of a sweep gives the whole config of its jobs
        return config, []
    values = cast(dict[str, Any], OmegaConf.to_container(read_config(folder / "config.yaml")))
    for key in sorted(config):  # a key that is no group may be newer than the run
        missing = values.get(key) is None and (key in _MAY_BE_MISSING or not OmegaConf.is_dict(config[key]))
        if not missing and isinstance(values.get(key), dict) != OmegaConf.is_dict(config[key]):
            raise ValueError(f"{folder / 'config.yaml'} is not the config of a run: {key} is missing or misplaced.")
    stored = cast(DictConfig, OmegaConf.create(_moved(values, str(values["paths"].get("run")), str(config.paths.run))))
    started = stored.copy()
    if HydraConfig.initialized():
        groups = set(HydraConfig.get().runtime.choices)
        for override in HydraConfig.get().overrides.task:
            key = override.lstrip("+").split("=", 1)[0]
            of_group = key.split("@")[0] in groups or OmegaConf.is_dict(OmegaConf.select(stored, key))
            if override.startswith("~") or of_group:
                what = key.lstrip("~")
                raise ValueError(f"{override}: a resumed run keeps its {what}; set single values only.")
            OmegaConf.update(stored, key, OmegaConf.select(config, key), force_add=True)
    stored.paths, stored.imports = config.paths, config.imports
    return stored, list(differences(OmegaConf.to_container(started), OmegaConf.to_container(stored)))


def read_config(file: Path) -> DictConfig:
    """Read the config of a run; raise ValueError, naming the file, if it is none."""
    try:
        values = parse_yaml(file.read_text(encoding="utf-8"))
        config = cast(DictConfig, OmegaConf.create(values if isinstance(values, dict) else {}))
        OmegaConf.resolve(config.copy())
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ValueError(f"{file} cannot be read as the config of a run: {error}. Mend it, or move it away.") from error
    return config


def _moved(value: Any, old: str, new: str) -> Any:
    """Replace the old run folder in every path, in case the folder was moved or copied."""
    if isinstance(value, dict):
        return {key: _moved(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new) for inner in value]
    return new + value[len(old) :] if isinstance(value, str) and value.startswith(old) else value
