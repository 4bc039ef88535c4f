"""Self-describing checkpoints: plain values inside, built by the registries, and loaded without running code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._pytree import tree_iter

from regcascade.cascades import Cascade, build
from regcascade.data.options import check_size
from regcascade.utils.files import written_whole
from regcascade.utils.registry import Spec
from regcascade.utils.version import __version__

CHECKPOINT_KEY = "regcascade"
FORMAT = 1
PREFIX = "cascade."
MODEL_KEYS = ("model", "cascade", "n", "affine", "size")
PRETRAINED = Path(__file__).parent / "pretrained"
REPLACED = 4  # times as many weights as the file's may be made: some networks make a weight, then replace it


class CheckpointError(ValueError):
    """A file is not a checkpoint of regcascade, or not one of the model asked for."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file."""

    path: Path
    description: Mapping[str, Any]  # see `describe`
    weights: Mapping[str, Tensor]  # state dict of the cascade
    step: int  # optimiser steps so far
    optimizer: Mapping[str, Any] | None = None  # its state dict; None if no training can resume

    def build(self) -> Cascade:
        """Build the cascade it describes, with its weights, in evaluation mode."""
        try:
            with _at_most(REPLACED * sum(weight.numel() for weight in self.weights.values())):
                cascade = build(**{key: self.description[key] for key in MODEL_KEYS})
        except Exception as error:  # an edited description makes networks raise nearly anything
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"The model that {self.path} describes cannot be built: {reason}") from error
        self.load_into(cascade)
        cascade.description = self.description
        return cascade.eval()

    def data_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Merge its data options with those of `given`, which win unless they are `as_trained`."""
        changed = {key: value for key, value in given.items() if key != "name" and value != "as_trained"}
        return {**self.description["data"], **changed}

    def load_into(self, cascade: Cascade) -> None:
        """Copy its weights into a cascade that fits (see `check_fits`)."""
        self.check_fits(cascade)
        cascade.load_state_dict(dict(self.weights))

    def check_fits(self, cascade: Cascade) -> None:
        """Raise CheckpointError unless a cascade has exactly these weights, by name and shape."""
        theirs = {key: tuple(value.shape) for key, value in self.weights.items()}
        ours = {key: tuple(value.shape) for key, value in cascade.state_dict().items()}
        differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        if differing:
            key = differing[0]
            raise CheckpointError(
                f"{self.path} holds another model: {self.summary}. {len(differing)} weights differ, first {key}: "
                f"{theirs.get(key, 'absent')} in the file, {ours.get(key, 'absent')} in the model built. "
                "Build the model that the file describes, or name another file."
            )

    @property
    def summary(self) -> str:
        """Model in one line, for messages."""
        d = self.description
        return f"model={_name(d['model'])} cascade={_name(d['cascade'])} n={d['n']} affine={_name(d['affine'])}"


def describe(
    model: Spec,
    cascade: Spec,
    n: int,
    affine: Spec,
    size: tuple[int, int, int],
    label_names: Mapping[int, str],
    preprocessing: Mapping[str, Any],
    data: Mapping[str, Any],
    loss: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe, in plain values, how to build a model, how its images were made and what it was trained for."""
    return {
        "format": FORMAT, "version": __version__,
        "model": model, "cascade": cascade, "n": n, "affine": affine, "size": list(size),
        "label_names": {int(label): str(name) for label, name in label_names.items()},
        "preprocessing": dict(preprocessing), "data": dict(data), "loss": dict(loss or {}),
    }  # fmt: skip


def write(path: str | Path, cascade: Cascade, description: Mapping[str, Any], step: int = 0) -> None:
    """Write a cascade and its description (see `describe`) as a checkpoint, whole or not at all.

    A training can start from it (`init=`), not resume. `step` is the number of optimiser steps so far.
    """
    state = {f"{PREFIX}{key}": value.detach().cpu() for key, value in cascade.state_dict().items()}
    with written_whole(Path(path)) as temporary:
        torch.save({"state_dict": state, CHECKPOINT_KEY: dict(description), "global_step": step}, temporary)


def pretrained_names() -> list[str]:
    """Names of the trained models that come with regcascade; each can be given in place of a file."""
    return sorted(path.stem for path in PRETRAINED.glob("*.ckpt"))


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint, a file or one of `pretrained_names`, without running code from it.

    Raises:
        ValueError: for a missing, truncated or foreign file, one of a newer format, or volumes larger than memory.
    """
    path = Path(path)
    if not path.exists() and str(path) in pretrained_names():
        path = PRETRAINED / f"{path}.ckpt"
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}. Name a file, or a model that comes with regcascade: "
            f"{', '.join(pretrained_names())}."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not all(_is_plain(value) for value in tree_iter(content) if isinstance(value, Tensor)):
            raise ValueError("a tensor in it is sparse, nested, quantised, complex, or without its data")
    except Exception as error:  # damaged files make torch raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is truncated, foreign, or holds more than tensors and plain "
            f"values, which is refused ({reason})"
        ) from error
    description = content.get(CHECKPOINT_KEY) if isinstance(content, dict) else None
    if not isinstance(description, dict) or not _is_whole(content, description):
        raise CheckpointError(f"{path} is not a checkpoint of regcascade: it does not describe its model.")
    if description["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {description['format']} and this is regcascade {__version__}, which reads up to "
            f"{FORMAT}: update regcascade."
        )
    check_size(f"{path}: size", description["size"])
    optimizer: Mapping[str, Any] | None = None
    match content:
        case {"pytorch-lightning_version": str(), "optimizer_states": [{"param_groups": [{}, *_]} as found, *_]}:
            optimizer = found
    weights = _below(PREFIX, content["state_dict"])
    return Checkpoint(path, description, weights, content.get("global_step", 0), optimizer)


def _below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): weight for key, weight in weights.items() if key.startswith(prefix)}


def _is_whole(content: Mapping[str, Any], description: Mapping[str, Any]) -> bool:
    weights, step = content.get("state_dict"), content.get("global_step", 0)
    mappings = ("data", "label_names", "preprocessing")
    return (
        {*MODEL_KEYS, *mappings, "format"} <= set(description)
        and isinstance(description["format"], int)
        and all(isinstance(description[key], dict) for key in mappings)
        and isinstance(description["preprocessing"].get("recipe"), dict | None)
        and isinstance(step, int)
        and isinstance(weights, dict)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items())
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds a real number of its own for each element."""
    if tensor.is_nested or tensor.is_quantized or tensor.is_complex() or tensor.layout != torch.strided:
        return False
    return tensor.device.type == "cpu" and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


@contextmanager
def _at_most(weights: int) -> Iterator[None]:
    """Raise ValueError in the block as soon as modules have made more weights, before these take memory."""
    made = 0

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal made
        made += 0 if weight is None else weight.numel()
        if made > weights:
            raise ValueError("it has more weights than the file holds.")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def load(path: str | Path) -> Cascade:
    """Load a trained cascade in evaluation mode on the CPU, running no code from the file.

    Import a network or cascade of your own first, so that its name is known.

    >>> load("hippocampus").n
    1
    """
    return read(path).build()


def load_affine(cascade: Cascade, path: str | Path) -> None:
    """Copy the weights of a checkpoint's affine stage into a cascade of the same volume size."""
    checkpoint = read(path)
    weights = _below("affine.", checkpoint.weights)
    if cascade.affine is None or cascade.size is None or not weights:
        raise CheckpointError(f"{path} has no affine stage ({checkpoint.summary}): train one with experiment=affine.")
    if tuple(checkpoint.description["size"]) != cascade.size:
        raise CheckpointError(
            f"The affine network of {path} was trained for volumes of {checkpoint.description['size']} voxels and "
            f"this run has {list(cascade.size)}: set data.size to the former, or train another one "
            "(experiment=affine)."
        )
    cascade.affine.load_state_dict(weights)


def _name(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec["name"])
