"""Convert TensorFlow's arrays to a checkpoint of regcascade."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regcascade.cascades import build
from regcascade.cascades.checkpoint import describe, write
from regcascade.types import Size

DATA = {"name": "prepared"}  # what evaluates them: data.root names a folder that `regcascade prepare` made
LISTED = 3  # names in a message
# The convolutions of VoxelMorph in their order; the flow head is the last.
VOXELMORPH_LAYERS = (
    "passes.0.encoders.0.0", "passes.0.encoders.1.0", "passes.0.encoders.2.0", "passes.0.encoders.3.0",
    "passes.0.bottom.0", "passes.0.up3.0", "passes.0.up2.0", "passes.0.up1.0.0", "passes.0.up1.1.0",
    "passes.0.up0.0.0", "passes.0.up0.1.0", "heads.0",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """Published model: the arguments of `build`, how its images were made, and the state dict of the cascade."""

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


def converted(
    arrays: Mapping[str, np.ndarray],
    module: nn.Module,
    layers: Mapping[str, str],
    kinds: tuple[str, str],
    what: str,
    file: Path,
) -> dict[str, Tensor]:
    """Make the state dict of a module from TensorFlow's variables.

    TensorFlow lays out the kernel of a convolution as (x, y, z, in, out) and that of an up-convolution as (x, y, z,
    out, in), PyTorch as (out, in, x, y, z) and (in, out, x, y, z): one permutation for both, and no flip.

    Args:
        arrays: variables of `file` by their names.
        module: has the wanted shapes; it may be on the meta device, and does not change.
        layers: name of each layer in the module, by its name in the file.
        kinds: last part of the names of weights and of biases in the file.
        what: kind of model, for messages.

    Raises:
        ValueError: if a variable is missing, left over, of another shape, or not finite; it names file and variable.
    """
    variables = {
        f"{ours}.{part}": f"{theirs}/{kind}"
        for theirs, ours in layers.items()
        for part, kind in zip(("weight", "bias"), kinds, strict=True)
    }
    state = module.state_dict()
    wanted = {variables[key] for key in state}
    problems = [(wanted - set(arrays), "it lacks {}"), (set(arrays) - wanted, "{} would be left over")]
    found = [text.format(_listed(sorted(names))) for names, text in problems if names]
    if found:
        raise ValueError(f"{file} does not hold the weights of a {what}: {', and '.join(found)}.")
    weights = {}
    for key, weight in state.items():
        name = variables[key]
        array = arrays[name]
        shape = tuple(weight.permute(2, 3, 4, 1, 0).shape if weight.ndim == 5 else weight.shape)
        if array.shape != shape:
            raise ValueError(
                f"{file}: {name} has the shape {list(array.shape)}, and a {what} has {list(shape)} there. "
                "These weights are of a network that regcascade does not have."
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} is not made of finite numbers. Export or download the file again.")
        tensor = torch.from_numpy(array.astype(np.float32))
        weights[key] = (tensor.permute(4, 3, 0, 1, 2) if tensor.ndim == 5 else tensor).contiguous()
    return weights


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
