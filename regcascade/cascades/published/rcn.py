"""RCN's TensorFlow weights, by the names of its variables.

A released model is an affine stem and deform stems, each an own scope: `gaffdfrm/affine_stem/conv1/W`,
`gaffdfrm/deform_stem_0/conv1/W`, and so on. The names say the networks and how many there are, the shapes how wide
they are; how often each was repeated in training leaves no trace, and needs none.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regcascade.cascades import build
from regcascade.cascades.published.conversion import Published, converted, weight_names
from regcascade.data.preprocessing.recipes import build_recipe
from regcascade.types import Size, level_size
from regcascade.utils.registry import check_choice

RECIPES_OF_RCN = ("liver", "brain")
SIDE = 128  # of RCN's and DR-Net's volumes
COARSEST = 6  # the level of the last map of VTN's encoder
AFFINE = "affine_stem"
VARIABLE = re.compile(r"(?P<scope>(?:.*/)?(?:affine_stem|deform_stem_\d+)/)[^/]+/[Wb]")
# The program also saves the state of its optimiser: a W/Adam and W/Adam_1 for each W, and scalars.
OF_THE_OPTIMISER = re.compile(r"/[Wb]/[^/]+$")
WHAT = {"affine": "affine network", "vtn": "VTN", "voxelmorph": "VoxelMorph"}

_ENCODER = {
    f"conv{k + 1}{suffix}": f"encoder.levels.{k}.{second}.0"
    for k in range(6)
    for second, suffix in enumerate(("", "_1") if k >= 2 else ("",))
}
LAYERS: dict[str, dict[str, str]] = {
    "affine": {**_ENCODER, "conv7_W": "matrix", "conv7_b": "offset"},
    "vtn": {
        **_ENCODER,
        **{f"pred{6 - k}": f"predictions.{k}" for k in range(5)},
        **{f"upsamp{6 - k}to{5 - k}": f"up_predictions.{k}" for k in range(5)},
        **{f"deconv{5 - k}": f"up_features.{k}" for k in range(5)},
        "upsamp1to0": "heads.0",
    },
    "voxelmorph": {
        **{f"conv{k + 1}": f"passes.0.encoders.{k}.0" for k in range(4)},
        "decode4": "passes.0.bottom.0",
        "decode3": "passes.0.up3.0",
        "decode2": "passes.0.up2.0",
        "decode1": "passes.0.up1.0.0",
        "decode1_1": "passes.0.up1.1.0",
        "decode0": "passes.0.up0.0.0",
        "decode0_1": "passes.0.up0.1.0",
        "flow": "heads.0",
    },
}
TELLING = {"upsamp1to0": "vtn", "decode4": "voxelmorph"}  # a layer that only one network has


@dataclass(frozen=True)
class _Stem:
    """Variables of one network.

    Attributes:
        scope: prefix of the names of its variables.
        arrays: variables by their names in the file.
    """

    scope: str
    arrays: Mapping[str, np.ndarray]

    def shape(self, layer: str, file: Path) -> tuple[int, ...]:
        """Find the shape of a layer's kernel."""
        name = f"{self.scope}{layer}/W"
        if name not in self.arrays or self.arrays[name].ndim != 5:
            raise ValueError(f"{file} has no kernel {name}: export every variable of the checkpoint.")
        return self.arrays[name].shape


def read_rcn(file: Path, size: Size | None = None, recipe: str = "liver") -> Published:
    """Read an export of RCN's variables as a recursive cascade.

    Args:
        file: .npz, each variable under its name (docs/published.md has the script).
        size: sides of the volumes it was trained on; None means the papers' 128, or what the affine stem implies.
        recipe: how its images were made, `liver` or `brain`.

    Raises:
        ValueError: naming the file, if it is no such export, pickled, lacks variables, has others, or has shapes that
            are of no network.
    """
    check_choice("--recipe", recipe, RECIPES_OF_RCN)
    affine, deform = _stems(_arrays(file), file)
    specs = [_spec(stem, file) for stem in deform]
    size = _size(affine, size, file)
    model = specs[0] if specs else {"name": "vtn"}
    strategy: dict[str, Any] = {"name": "cr"}
    if any(spec != model for spec in specs):
        strategy["stages"] = specs
    stage = {"name": "none" if affine is None else "learned"}
    with torch.device("meta"):
        cascade = build(model, strategy, len(specs), stage, size)
    weights: dict[str, Tensor] = {}
    for k, (stem, spec) in enumerate(zip(deform, specs, strict=True)):
        weights |= _weights(stem, cascade.nets[k], spec["name"], f"nets.{k}.", file)
    if affine is not None and cascade.affine is not None:
        weights |= _weights(affine, cascade.affine, "affine", "affine.", file)
    made = build_recipe({"name": recipe, "size": list(size)}).as_dict()
    return Published(model, strategy, len(specs), stage, size, {"size": list(size), "recipe": made}, weights)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """Read every variable of an .npz by its name, without the state of the optimiser and of the training."""
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is no .npz of plain arrays ({error}). Export the variables by the script of docs/published.md; "
            "pickled files are refused, since they can run code."
        ) from error
    named = {name.removesuffix(":0"): array for name, array in arrays.items()}
    return {name: array for name, array in named.items() if array.ndim and not OF_THE_OPTIMISER.search(name)}


def _stems(arrays: Mapping[str, np.ndarray], file: Path) -> tuple[_Stem | None, list[_Stem]]:
    """Group the variables into the affine stem, if there is one, and the deform stems in order."""
    stems: dict[str, dict[str, np.ndarray]] = {}
    strangers = []
    for name, array in arrays.items():
        match = VARIABLE.fullmatch(name)
        if match is None:
            strangers.append(name)
        else:
            stems.setdefault(match["scope"], {})[name] = array
    if not stems or strangers:
        found = f"{strangers[0]} is none" if strangers else "it has none"
        raise ValueError(
            f"{file} must hold variables of affine_stem and deform_stem_0, deform_stem_1, ... alone, and {found}."
        )
    named = {scope.split("/")[-2]: _Stem(scope, stem) for scope, stem in stems.items()}
    if len(named) < len(stems):
        raise ValueError(f"{file} holds more than one model: {', '.join(sorted(stems))}. Export them one by one.")
    affine = named.pop(AFFINE, None)
    order = [f"deform_stem_{k}" for k in range(len(named))]
    missing = sorted(set(order) - set(named))
    if missing:
        raise ValueError(f"{file} has {', '.join(sorted(named))}, but no {missing[0]}: export every variable.")
    return affine, [named[name] for name in order]


def _spec(stem: _Stem, file: Path) -> dict[str, Any]:
    """Find the network of a deform stem and its width."""
    layers = {name.removeprefix(stem.scope).rsplit("/", 1)[0] for name in stem.arrays}
    networks = [network for layer, network in TELLING.items() if layer in layers]
    if len(networks) != 1:
        raise ValueError(
            f"{file}: {stem.scope[:-1]} is neither a VTN (it would have a layer upsamp1to0) nor a VoxelMorph (decode4)."
        )
    width = stem.shape("conv1", file)[-1]
    if networks == ["vtn"]:
        return {"name": "vtn", "width": width}
    if width % 16:
        raise ValueError(f"{file}: {stem.scope}conv1/W has {width} maps, and VoxelMorph's a multiple of 16.")
    return {"name": "voxelmorph", "width_multiplier": width // 16}


def _size(affine: _Stem | None, size: Size | None, file: Path) -> Size:
    """Find the sides of the volumes: the last layers of the affine stem span its whole last map."""
    if affine is None:
        return size or (SIDE, SIDE, SIDE)
    x, y, z = affine.shape("conv7_W", file)[:3]
    implied = (x * 2**COARSEST, y * 2**COARSEST, z * 2**COARSEST)
    if size is not None and level_size(size, COARSEST) != (x, y, z):
        raise ValueError(
            f"--size {' '.join(map(str, size))} does not fit the affine stem of {file}, which is for volumes of "
            f"{' '.join(map(str, implied))} voxels, or up to 63 fewer along an axis."
        )
    return size or implied


def _weights(stem: _Stem, module: nn.Module, network: str, key: str, file: Path) -> dict[str, Tensor]:
    """Make the state dict of one network of a cascade."""
    names = weight_names(LAYERS[network], module, stem.scope, ("/W", "/b"))
    weights = converted(stem.arrays, module, names, WHAT[network], file)
    return {key + name: weight for name, weight in weights.items()}
