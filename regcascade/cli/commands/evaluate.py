"""`regcascade evaluate`: measure a checkpoint, or another method, over pairs of scans."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.fabric import Fabric
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import Checkpoint, CheckpointError, read
from regcascade.cli.failures import explained
from regcascade.cli.hydra_app import plain, record_run
from regcascade.cli.run_folder import check_devices, check_keys, set_options
from regcascade.data import build_data, options_as_trained
from regcascade.evaluation.baselines import Method, build_method
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.evaluation.processes import devices_of, together
from regcascade.evaluation.resume import alone_in, can_resume, identity
from regcascade.evaluation.run import evaluate_to_folder
from regcascade.report.tables.terminal import measure_tables
from regcascade.utils.registry import check_options, import_user_modules

NETWORK = "network"  # the method that evaluates the checkpoint


def run(config: DictConfig) -> dict[int, pd.DataFrame]:
    """Evaluate a checkpoint or another method: write `pairs.csv` and `summary.json` for each r, print the measures.

    Returns the rows of `pairs.csv` by r.
    """
    check_keys(config, "evaluate")
    import_user_modules(config.imports)
    options = plain(config)
    checkpoint = None if options["checkpoint"] is None else read(options["checkpoint"])
    data_options = options["data"]
    if data_options["name"] == "trained":
        if checkpoint is None:
            raise ValueError("No scans are named: give data=..., or checkpoint=FILE for its validation pairs.")
        data_options = checkpoint.data_options(data_options)
    elif checkpoint is not None and options["method"]["name"] == NETWORK:
        taken = _taken(data_options["name"], checkpoint)
        data_options = {**data_options, **taken}
        OmegaConf.update(config, "data", taken, force_add=True)  # for the record
    method = _method(options, checkpoint)
    data = build_data(data_options)
    file = checkpoint.path if checkpoint is not None and isinstance(method, Cascade) else None
    if isinstance(method, Cascade) and method.size not in (None, tuple(data.size)):
        raise CheckpointError(
            f"{file} has an affine network for volumes of {list(method.size or ())} voxels, and "
            f"data.size={list(data.size)}: set data.size to the former."
        )
    each = _each_r(options)
    for one in each:
        method.about(one.r, one.repeat)  # raises for invalid values before any pair is read
    fabric = _fabric(options, method)
    folder = Path(options["paths"]["run"])
    folders = [folder / f"r{one.r}" if isinstance(options["r"], list) else folder for one in each]
    resume: list[bool] = []
    whose = [identity(method, data, data_options, file, one, fabric.device.type) for one in each]
    console, rows = Console(quiet=not fabric.is_global_zero), {}
    with ExitStack() as stack:
        kept = f"Measured pairs are kept: the same command with paths.run={folder} measures the others."
        stack.enter_context(explained(data.num_workers, lambda: kept))
        if fabric.is_global_zero:  # before other processes start, so that an error is printed once
            stack.enter_context(alone_in(folders))
            resume = [can_resume(*args) for args in zip(folders, whose, strict=True)]
        share = stack.enter_context(together(fabric))
        folders, resume = fabric.broadcast((folders, resume))
        for one, place, resumed in zip(each, folders, resume, strict=True):
            if share.rank == 0:
                record_run(place, config)
            rows[one.r] = evaluate_to_folder(method, data, place, file, one, fabric.device, resumed, share)
            if len(each) > 1:
                console.print(f"r={one.r}")
            console.print(*measure_tables(rows[one.r]), sep="\n")
    console.print(f"Results: {folder}")
    return rows


def _taken(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Find, and say, the preprocessing that a data set takes from the checkpoint: all but what the user sets."""
    made, given = checkpoint.description["preprocessing"], set_options("data")
    taken = {key: value for key, value in options_as_trained(name, made).items() if key not in given}
    if taken:
        listed = ", ".join(f"data.{key}={str(value).replace(' ', '')}" for key, value in taken.items())
        rank_zero_info(f"Taken from {checkpoint.path.name}: {listed}.")
    recipe = (made.get("recipe") or {}).get("name", "generic")
    if taken and recipe != "generic":
        rank_zero_warn(f"The model is of scans by the recipe {recipe}: prepare these by it, for data=prepared.")
    return taken


def _each_r(options: dict[str, Any]) -> list[EvaluationOptions]:
    """Check r, and make the options of each value."""
    r, others = options["r"], {key: options[key] for key in ("repeat", "labels", "metrics", "stages", "directions")}
    check_options("evaluate", others, EvaluationOptions)
    several = r if isinstance(r, list) else [r]
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in several)
    if not several or not whole or len(set(several)) < len(several):
        raise ValueError(f"r={r}: give an integer, 1 or more, or a list of different ones, such as r=[1,2,3].")
    return [EvaluationOptions(one, **others) for one in several]


def _method(options: dict[str, Any], checkpoint: Checkpoint | None) -> Cascade | Method:
    """Build the checkpoint's cascade, or the method that the config names."""
    spec = options["method"]
    if spec["name"] == NETWORK:
        check_options("method=network", {key: value for key, value in spec.items() if key != "name"}, lambda: None)
        if checkpoint is None:
            raise ValueError("checkpoint is missing: give it as checkpoint=FILE, or name another method: method=NAME.")
        return checkpoint.build()
    if checkpoint is not None and options["data"]["name"] != "trained":
        raise ValueError(
            f"checkpoint={checkpoint.path} would not be used, as data={options['data']['name']} says which scans and "
            f"method={spec['name']} registers them: leave one of them out."
        )
    if options["stages"]:
        raise ValueError(f"stages=true measures after every network, and method={spec['name']} has none: leave it out.")
    return build_method(spec)


def _fabric(options: dict[str, Any], method: Cascade | Method) -> Fabric:
    """Set up the devices, or on a CPU the processes, that share the pairs."""
    accelerator, devices, nodes = (options[key] for key in ("accelerator", "devices", "num_nodes"))
    if isinstance(method, Method) and not method.on_gpu:
        if accelerator not in ("auto", "cpu"):
            raise ValueError(f"accelerator={accelerator}: this method runs on the CPU only. Leave accelerator out.")
        accelerator = "cpu"
    fabric = devices_of(accelerator, devices, nodes)
    check_devices(fabric.world_size, "devices")
    return fabric
