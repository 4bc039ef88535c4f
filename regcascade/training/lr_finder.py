"""Finding a learning rate before a training (`optimizer.lr=auto`), by Lightning's range test."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from lightning.pytorch.tuner import Tuner
from matplotlib.figure import Figure

from regcascade.data import RegistrationData
from regcascade.training.module import NonFiniteLossError, RegistrationModule
from regcascade.utils.files import written_whole

AUTO = "auto"
LOWEST, HIGHEST, STEPS = 1e-6, 0.1, 100


def find_learning_rate(
    module: RegistrationModule, data: RegistrationData, trainer: Mapping[str, Any], folder: Path
) -> float:
    """Train for a hundred steps while the learning rate rises, and take it where the loss falls fastest.

    The test moves all weights at one rate. What it finds is taken for the flow heads, which are what learns first, and
    the rest of the network learns at `1 / head_lr` of it. The module is as before afterwards but for its learning
    rate, and so is the data. Writes `lr_find.csv` and `lr_find.png`.

    Args:
        module: what is to be trained.
        data: its pairs.
        trainer: the options of Lightning's trainer.
        folder: the run folder.

    Returns:
        `optimizer.lr`.

    Raises:
        ValueError: if the training breaks down in the test, or the loss falls nowhere.
    """
    short = {
        "max_time": None, "max_epochs": -1, "max_steps": -1, "limit_val_batches": 0, "num_sanity_val_steps": 0,
        "val_check_interval": 10**9, "check_val_every_n_epoch": None, "fast_dev_run": False, "logger": False,
        "enable_checkpointing": False, "enable_model_summary": False,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    tuner = Tuner(L.Trainer(**{**trainer, **short}, default_root_dir=folder))
    try:
        finder = tuner.lr_find(
            module, datamodule=data, min_lr=LOWEST, max_lr=HIGHEST, num_training=STEPS, update_attr=False
        )
    except NonFiniteLossError as error:
        raise ValueError(f"optimizer.lr=auto: {error} Or give a learning rate.") from error
    found = None if finder is None else finder.suggestion()
    if finder is None or found is None:
        raise ValueError("optimizer.lr=auto found no learning rate at which the loss falls: give one.")
    losses = pd.DataFrame(zip(finder.results["lr"], finder.results["loss"], strict=False), columns=["lr", "loss"])
    with written_whole(folder / "lr_find.csv") as path:
        losses.to_csv(path, index=False)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    finder.plot(suggest=True, ax=figure.subplots())
    figure.savefig(folder / "lr_find.png")
    rate = float(f"{found / module.optimization.head_lr:.3g}")
    module.optimization = replace(module.optimization, lr=rate)
    return rate
