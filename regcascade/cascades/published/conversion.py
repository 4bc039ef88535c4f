"""Convert TensorFlow's arrays to a checkpoint of regcascade."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regcascade.cascades import build
from regcascade.cascades.checkpoint import describe, write
from regcascade.types import Size

Arrays = Mapping[str, np.ndarray]  # of any type and shape, by their names in the file

DATA = {"name": "prepared"}  # what evaluates them: data.root names a folder that `regcascade prepare` made
LISTED = 3  # names in a message


@dataclass(frozen=True)
class Published:
    """Published model: the arguments of `build`, and its weights.

    Attributes:
        model: network of each stage.
        cascade: strategy.
        n: deformable stages.
        affine: the affine stage.
        size: sides of the volumes it was trained on.
        preprocessing: how its images were made.
        weights: the state dict of the cascade.
    """

    model: Mapping[str, Any]
    cascade: Mapping[str, Any]
    n: int
    affine: Mapping[str, Any]
    size: Size
    preprocessing: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def write(self, path: Path, label_names: Mapping[int, str]) -> None:
        """Write a checkpoint that loads, registers and evaluates, and that a training can start from."""
        options = self.model, self.cascade, self.n, self.affine, self.size
        cascade = build(*options)
        cascade.load_state_dict(dict(self.weights))
        write(path, cascade, describe(*options, label_names, self.preprocessing, DATA))


def converted(arrays: Arrays, module: nn.Module, names: Mapping[str, str], what: str, file: Path) -> dict[str, Tensor]:
    """Make the state dict of a module from TensorFlow's variables.

    TensorFlow lays out the kernel of a convolution as (x, y, z, in, out) and that of an up-convolution as (x, y, z,
    out, in), PyTorch as (out, in, x, y, z) and (in, out, x, y, z): one permutation for both, and no flip.

    Args:
        arrays: variables by their names in the file.
        module: has the wanted shapes; it may be on the meta device, and does not change.
        names: variable of each weight, by the weight's name in the state dict.
        what: name of the network, for messages.
        file: of the variables.

    Raises:
        ValueError: if a variable is missing, left over, of another shape, or not finite; it names file and variable.
    """
    state = module.state_dict()
    check_all_used(arrays, names.values(), what, file)
    weights = {}
    for key, name in names.items():
        array = arrays[name]
        wanted = tuple(state[key].permute(2, 3, 4, 1, 0).shape if state[key].ndim == 5 else state[key].shape)
        if array.shape != wanted:
            raise ValueError(
                f"{file}: {name} has the shape {list(array.shape)}, and a {what} has {list(wanted)} there. "
                "These weights are of a network that regcascade does not have."
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} is not made of finite numbers. Export or download the file again.")
        tensor = torch.from_numpy(array.astype(np.float32))
        weights[key] = (tensor.permute(4, 3, 0, 1, 2) if tensor.ndim == 5 else tensor).contiguous()
    return weights


def check_all_used(arrays: Arrays, wanted: Collection[str], what: str, file: Path) -> None:
    """Raise ValueError unless a file has exactly the wanted variables."""
    missing, left_over = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or left_over:
        found = [f"it lacks {_listed(missing)}"] if missing else []
        found += [f"{_listed(left_over)} would be left over"] if left_over else []
        raise ValueError(f"{file} does not hold the weights of a {what}: {', and '.join(found)}.")


def weight_names(layers: Mapping[str, str], module: nn.Module, prefix: str, kinds: tuple[str, str]) -> dict[str, str]:
    """Find the variable of each weight of a module, by the weight's name.

    Args:
        layers: name of each layer in the module, by its name in TensorFlow.
        module: that has the layers.
        prefix: of the variables' names.
        kinds: suffixes of weight and bias in the file.
    """
    called = {f"{ours}.{part}": f"{prefix}{theirs}" for theirs, ours in layers.items() for part in ("weight", "bias")}
    kind = {"weight": kinds[0], "bias": kinds[1]}
    return {key: called[key] + kind[key.rsplit(".", 1)[1]] for key in module.state_dict()}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
