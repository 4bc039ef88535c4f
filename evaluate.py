"""Evaluate a checkpoint over pairs of scans: `python evaluate.py checkpoint=FILE data=... r=2`."""

from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from rich.console import Console

from regcascade.checkpoint import Checkpoint, CheckpointError, read
from regcascade.data import RegistrationData, build_data
from regcascade.entry import command, plain, record_run
from regcascade.evaluation import evaluate_to_folder
from regcascade.registry import import_user_modules
from regcascade.report.tables import measure_tables
from regcascade.runs import register_resolvers

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate, and print the measures before and after."""
    evaluate(config)


def evaluate(config: DictConfig) -> pd.DataFrame:
    """Evaluate a checkpoint as a config says; writes `pairs.csv` and `summary.json` and returns the rows."""
    import_user_modules(config.imports)
    options = plain(config)
    checkpoint = read(options["checkpoint"])
    data = _data(options["data"], checkpoint)
    cascade = checkpoint.build()
    if cascade.size not in (None, tuple(data.size)):
        raise CheckpointError(
            f"{checkpoint.path} has an affine network for volumes of {list(cascade.size)} voxels, and "
            f"data.size={list(data.size)}: set data.size to the former."
        )
    cascade.order(options["r"], options["repeat"])  # which says what is wrong with them, before any pair
    folder = Path(options["paths"]["run"])
    device = _device(options["accelerator"])
    record_run(folder, config)
    rows = evaluate_to_folder(
        cascade, data, folder, checkpoint.path, r=options["r"], repeat=options["repeat"], device=device
    )
    console = Console()
    console.print(*measure_tables(rows), sep="\n")
    console.print(f"Results: {folder}")
    return rows


def _device(accelerator: str) -> torch.device:
    try:
        return Fabric(accelerator=accelerator, devices=1).device
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"accelerator={accelerator}: {error}") from error


def _data(options: dict[str, Any], checkpoint: Checkpoint) -> RegistrationData:
    """The data set asked for; `trained` is the checkpoint's own, with what is set put in its place."""
    if options["name"] == "trained":
        given = {key: value for key, value in options.items() if key != "name" and value != "as_trained"}
        options = {**checkpoint.description["data"], **given}
    return build_data(options)


if __name__ == "__main__":
    command(main)
