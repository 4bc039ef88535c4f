"""Build what a training needs from the plain values of a config: cascade, Lightning module, trainer.

Every function raises ValueError for an option that does not exist or whose value is invalid.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from regcascade.cascades import Cascade, build
from regcascade.cascades.base import SMALLEST_SIDE
from regcascade.cascades.checkpoint import describe, load_affine, read
from regcascade.data import RegistrationData
from regcascade.losses import Objective
from regcascade.training.callbacks.checkpoints import WholeCheckpoints, checkpoint_callbacks
from regcascade.training.callbacks.progress import TrainingProgress
from regcascade.training.devices import placed
from regcascade.training.execution import check_numbers, split_trainer
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization
from regcascade.training.repeats import Repeats
from regcascade.types import Size
from regcascade.utils.registry import check_options

SET_HERE = ("logger", "callbacks", "default_root_dir", "plugins")  # options of L.Trainer that no config may set


def build_cascade(options: Mapping[str, Any], size: Size, n: int | None = None) -> Cascade:
    """Build the cascade of a config for volumes of a size, with `n` deformable stages or those of the config."""
    return build(options["model"], options["cascade"], options["n"] if n is None else n, _affine(options), size)


def _affine(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options["affine"].items() if key != "checkpoint"}


def build_optimization(options: Mapping[str, Any]) -> Optimization:
    """Build the optimiser and schedule of the group `optimizer`."""
    if options.get("lr") == "auto":
        raise ValueError("optimizer.lr=auto: there is no search for a learning rate. Give one: optimizer.lr=0.001.")
    check_options("optimizer", options, Optimization)
    return Optimization(**options)


def build_objective(options: Mapping[str, Any]) -> Objective:
    """Build the objective of the group `loss`."""
    check_options("loss", options, Objective)
    return Objective(**options)


def build_module(options: Mapping[str, Any], data: RegistrationData, fresh: bool = True) -> RegistrationModule:
    """Build the Lightning module of a config, and check that it fits the data.

    Initial weights (`init`, `affine.checkpoint`) are loaded if `fresh`, not when a checkpoint is resumed.
    """
    if min(data.size) < SMALLEST_SIDE:
        raise ValueError(f"data.size={list(data.size)}: the networks need {SMALLEST_SIDE} voxels a side or more.")
    cascade = build_cascade(options, data.size)
    repeats = Repeats.of(options.get("train_r", 1), options["repeat"], options["seed"])
    cascade.order(repeats.unless(options["r"]), options["repeat"])  # raises for invalid values before training
    if fresh and (affine := options["affine"].get("checkpoint")):
        load_affine(cascade, affine)
    if fresh and options["init"]:
        read(options["init"]).load_into(cascade)
    objective, optimization = build_objective(options["loss"]), build_optimization(options["optimizer"])
    objective.check_supervision(data.scans_without)
    description = describe(
        options["model"], options["cascade"], cascade.n, _affine(options), data.size,
        data.label_names, data.preprocessing, options["data"], options["loss"],
    ) | {"seed": options["seed"], "train_r": options.get("train_r", 1)}  # fmt: skip
    return RegistrationModule(cascade, objective, optimization, description, tuple(data.label_names), repeats)


def place_trainer(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of the group `trainer`, and fill in the devices that are available."""
    check_numbers(trainer)
    options = placed(trainer)
    check_options("trainer", split_trainer(options)[1], L.Trainer, reserved=SET_HERE)
    if str(trainer.get("strategy")).startswith("ddp") and options["strategy"] == "auto":
        rank_zero_info(f"trainer.strategy={trainer['strategy']} with one device: training in one process.")
    return options


def build_trainer(
    trainer: Mapping[str, Any], folder: Path, loggers: Sequence[Logger], callbacks: Sequence[Callback], labelled: bool
) -> L.Trainer:
    """Build Lightning's Trainer for a run folder, with the callbacks that write checkpoints.

    `trainer` is the result of `place_trainer`. If scans are labelled, the best checkpoint is that of the highest Dice.
    """
    options = split_trainer(trainer)[1]
    asked = options.get("enable_progress_bar", True) and not any(isinstance(each, ProgressBar) for each in callbacks)
    bars = [TrainingProgress()] if asked else []
    try:
        return L.Trainer(
            **options,
            default_root_dir=folder,
            logger=list(loggers),
            callbacks=[*callbacks, *bars, *checkpoint_callbacks(labelled, folder)],
            plugins=[WholeCheckpoints()],
        )
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"The trainer options do not fit: {error}") from error
