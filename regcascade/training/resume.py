"""Checks before a training is resumed: what may differ from its checkpoint, and what may not."""

from collections.abc import Mapping, Sequence
from typing import Any

from regcascade.cascades.checkpoint import MODEL_KEYS, Checkpoint, CheckpointError
from regcascade.training.module import RegistrationModule
from regcascade.utils.diff import differences

_OTHER_KEYS = ("preprocessing", "data", "loss")  # of a description, which may change


def check_state(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if a file has weights only, without the state of a training."""
    if checkpoint.param_groups is None:
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
    ours = module.configure_optimizers()["optimizer"].param_groups
    if changes := list(differences(_optimizer_options(checkpoint.param_groups or ()), _optimizer_options(ours))):
        raise CheckpointError(
            f"{'; '.join(changes)}: a resumed run takes its optimiser from its checkpoint, {checkpoint.path}. To "
            "change it, start a new run from the weights: init=FILE."
        )
    then, now = ({key: of.get(key) for key in _OTHER_KEYS} for of in (checkpoint.description, module.description))
    return list(differences(then, now))


def _known(then: Any, now: Any) -> Any:
    """Select the keys of `now` that `then` has: an older checkpoint lacks newer options."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return now
    return {key: _known(value, now.get(key)) for key, value in then.items()}


def _optimizer_options(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Derive the optimiser's options from the parameter groups of its state."""
    named = {group.get("name", "networks"): group for group in groups}
    rates = {name: group.get("initial_lr", group["lr"]) for name, group in named.items()}
    first = next(iter(named.values()))
    base = rates.get("networks", first["lr"])
    decoupled = "adamw" if first.get("decoupled_weight_decay") else "adam"
    return {
        "optimizer.name": "sgd" if "momentum" in first else decoupled,
        "optimizer.lr": float(f"{base:.6g}"),
        "optimizer.weight_decay": float(first["weight_decay"]),
        "optimizer.head_lr": float(f"{rates.get('heads', base) / base:.6g}"),
    }
