"""From the plain values of a config to what a training needs: the cascade, its Lightning module, the trainer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from regcascade.cascades import Cascade, build
from regcascade.cascades.base import SMALLEST_SIDE
from regcascade.cascades.checkpoint import describe, load_affine, read
from regcascade.data import RegistrationData
from regcascade.losses import Objective
from regcascade.training.callbacks.checkpoints import checkpoint_callbacks
from regcascade.training.checkpoint_io import WholeCheckpoints
from regcascade.training.devices import placed
from regcascade.training.execution import (
    check_compiles,
    check_half_precision,
    check_numbers,
    check_precision,
    likely_device,
    split_trainer,
)
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization
from regcascade.types import Size
from regcascade.utils.registry import check_options

SET_HERE = ("logger", "callbacks", "default_root_dir", "plugins")  # of the Trainer


def build_cascade(options: Mapping[str, Any], size: Size, n: int | None = None) -> Cascade:
    """The cascade that the groups `model`, `cascade` and `affine` of a config describe.

    Args:
        options: the config, plain values.
        size: sides of the volumes.
        n: deformable stages; by default those of the config.
    """
    affine = {key: value for key, value in options["affine"].items() if key != "checkpoint"}
    return build(options["model"], options["cascade"], options["n"] if n is None else n, affine, size)


def build_optimization(options: Mapping[str, Any]) -> Optimization:
    """The optimiser that the group `optimizer` describes.

    Raises:
        ValueError: for an option that does not exist, or a value that is not valid.
    """
    if options.get("lr") == "auto":
        raise ValueError("optimizer.lr=auto: there is no search for a learning rate. Give one: optimizer.lr=0.001.")
    check_options("optimizer", options, Optimization)
    return Optimization(**options)


def build_objective(options: Mapping[str, Any]) -> Objective:
    """The objective that the group `loss` describes.

    Raises:
        ValueError: for an option that does not exist, or a value that is not valid.
    """
    check_options("loss", options, Objective)
    return Objective(**options)


def build_module(options: Mapping[str, Any], data: RegistrationData, fresh: bool = True) -> RegistrationModule:
    """The cascade of a config in its Lightning module.

    Args:
        options: the config, plain values.
        data: what it is trained on.
        fresh: whether to load the weights it starts from (`init`, `affine.checkpoint`); a resumed training has its own.

    Raises:
        ValueError: for options that are not valid, contradict each other, or do not fit the data.
    """
    if min(data.size) < SMALLEST_SIDE:
        raise ValueError(f"data.size={list(data.size)}: the networks need {SMALLEST_SIDE} voxels a side or more.")
    cascade = build_cascade(options, data.size)
    cascade.order(options["r"], options["repeat"])  # raises for wrong values before training
    if fresh and (affine := options["affine"].get("checkpoint")):
        load_affine(cascade, affine)
    if fresh and options["init"]:
        read(options["init"]).load_into(cascade)
    objective, optimization = build_objective(options["loss"]), build_optimization(options["optimizer"])
    objective.check_supervision(data.scans_without)
    affine_options = {key: value for key, value in options["affine"].items() if key != "checkpoint"}
    description = describe(
        options["model"], options["cascade"], cascade.n, affine_options, data.size,
        data.label_names, data.preprocessing, options["data"], options["loss"],
    )  # fmt: skip
    return RegistrationModule(cascade, objective, optimization, description, tuple(data.label_names))


def place_trainer(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the group `trainer` with the devices there are, checked before any work is done on them.

    Raises:
        ValueError: for an option that does not exist, a value that is not valid, or devices that are not there.
    """
    check_numbers(trainer)
    options = placed(trainer)
    check_options("trainer", split_trainer(options)[1], L.Trainer, reserved=SET_HERE)
    if str(trainer.get("strategy")).startswith("ddp") and options["strategy"] == "auto":
        rank_zero_info(f"trainer.strategy={trainer['strategy']} with one device: training in one process.")
    return options


def set_execution(cascade: Cascade, trainer: Mapping[str, Any], size: Size, batch: int) -> None:
    """Let a cascade run as the options of a placed trainer say: precision, recomputation, compilation, layout.

    Args:
        cascade: what will train.
        trainer: the options.
        size: sides of the volumes.
        batch: pairs at a time.

    Raises:
        ValueError: if the device cannot.
    """
    execution, _ = split_trainer(trainer)
    device = likely_device(trainer["accelerator"])
    check_precision(trainer["precision"], device)
    if execution.compile:
        check_compiles(device)
    execution.apply(cascade)
    check_half_precision(cascade, size, batch, trainer["precision"], device)


def build_trainer(
    trainer: Mapping[str, Any], folder: Path, loggers: Sequence[Logger], callbacks: Sequence[Callback], labelled: bool
) -> L.Trainer:
    """Lightning's Trainer, with the callbacks that write checkpoints.

    Args:
        trainer: options that `place_trainer` gave.
        folder: of the run.
        loggers, callbacks: those of the config.
        labelled: whether scans have labels, so that the best checkpoint is that of the highest Dice.

    Raises:
        ValueError: for options that Lightning refuses.
    """
    try:
        return L.Trainer(
            **split_trainer(trainer)[1],
            default_root_dir=folder,
            logger=list(loggers),
            callbacks=[*callbacks, *checkpoint_callbacks(labelled, folder)],
            plugins=[WholeCheckpoints()],
        )
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"The trainer options do not fit: {error}") from error
