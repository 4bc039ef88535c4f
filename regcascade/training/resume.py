"""Checks before a training is resumed: what may differ from its checkpoint, and what may not."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from regcascade.cascades.checkpoint import MODEL_KEYS, Checkpoint, CheckpointError
from regcascade.training.module import RegistrationModule
from regcascade.utils.config_diff import differences

_OTHER_KEYS = ("preprocessing", "data", "loss")  # of a description, which may change


def check_state(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if a file has weights only, without the state of a training."""
    if checkpoint.optimizer is None:
        raise CheckpointError(
            f"ckpt_path: {checkpoint.path} has weights only, no state of a training to resume. Start a new run from "
            f"them: init={checkpoint.path}."
        )


def check_resumed(checkpoint: Checkpoint, module: RegistrationModule) -> list[str]:
    """Compare a checkpoint with the module that resumes it; return changes of data, preprocessing and loss in words.

    Raises CheckpointError if the model, the size of the volumes, or an option in the optimiser's state differs.
    """
    then, now = ({key: of.get(key) for key in MODEL_KEYS} for of in (checkpoint.description, module.description))
    changes = list(differences(then, _known(then, now)))
    try:
        checkpoint.check_fits(module.cascade)
    except CheckpointError as error:
        raise CheckpointError(f"{error} What differs: {'; '.join(changes)}.") from error
    if changes:
        told = "; ".join(f"data.{change}" if change.startswith("size:") else change for change in changes)
        raise CheckpointError(
            f"{checkpoint.path} holds another model: {told}. A resumed run keeps model, cascade, n, affine and "
            "data.size. To change them, start a new run from the weights: init=FILE."
        )
    ours = module.configure_optimizers()["optimizer"]
    state = checkpoint.optimizer or {}
    try:
        started = _optimizer_options(state["param_groups"])
        _check_moments(state["state"], ours)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(checkpoint, error) from error
    if changes := list(differences(started, _optimizer_options(ours.param_groups))):
        raise CheckpointError(
            f"{'; '.join(changes)}: a resumed run takes its optimiser from its checkpoint, {checkpoint.path}. To "
            "change it, start a new run from the weights: init=FILE."
        )
    then, now = ({key: of.get(key) for key in _OTHER_KEYS} for of in (checkpoint.description, module.description))
    return list(differences(then, now))


@contextmanager
def restoring(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Raise what Lightning raises while it restores a checkpoint as CheckpointError; leave what a training raises."""
    try:
        yield
    except Exception as error:
        within = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        if checkpoint is None or within.isdisjoint({"restore_training_state", "_restore_modules_and_callbacks"}):
            raise
        raise _damaged(checkpoint, error) from error


def _damaged(checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    reason = str(error).partition("\n")[0]
    return CheckpointError(
        f"{checkpoint.path} cannot be resumed: the state of its training is damaged ({type(error).__name__}: "
        f"{reason}). Take another checkpoint, or start a new run from its weights: init={checkpoint.path}."
    )


def _check_moments(state: Mapping[int, Mapping[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless a state holds what the optimiser keeps of each weight, which torch does not check."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, kept in state.items():
        shape = tuple(weights[number].shape) if number in range(len(weights)) else None
        shapes = {
            name: tuple(value.shape) if isinstance(value, Tensor) and value.is_floating_point() else str(value)
            for name, value in kept.items()
            if value is not None  # SGD without momentum
        }
        if shapes not in ({}, {"step": (), "exp_avg": shape, "exp_avg_sq": shape}):
            raise ValueError(f"what it keeps of weight {number} does not fit")


def _known(then: Any, now: Any) -> Any:
    """Select the keys of `now` that `then` has: an older checkpoint lacks newer options."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return now
    return {key: _known(value, now.get(key)) for key, value in then.items()}


def _optimizer_options(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Derive the optimiser's options from the parameter groups of its state."""
    named = {group.get("name", "networks"): group for group in groups}
    rates = {name: group.get("initial_lr", 1.0 * group["lr"]) for name, group in named.items()}
    first = next(iter(named.values()))
    base = rates.get("networks", first["lr"])
    decoupled = "adamw" if first.get("decoupled_weight_decay") else "adam"
    return {
        "optimizer.name": "sgd" if "momentum" in first else decoupled,
        "optimizer.lr": float(f"{base:.6g}"),
        "optimizer.weight_decay": float(first["weight_decay"]),
        "optimizer.head_lr": float(f"{rates.get('heads', base) / base:.6g}"),
    }
