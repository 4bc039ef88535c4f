"""RCN's TensorFlow weights, by the names of its variables.

A released model has an affine stem and deform stems, each with a scope: `gaffdfrm/affine_stem/conv1/W`,
`gaffdfrm/deform_stem_0/conv1/W`. Names say which networks and how many there are, shapes how wide they are.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regcascade.cascades import build
from regcascade.cascades.published.conversion import VOXELMORPH_LAYERS, Published, converted
from regcascade.data.preprocessing.recipes import build_recipe
from regcascade.types import Size, level_size
from regcascade.utils.registry import check_choice

Arrays = Mapping[str, np.ndarray]  # by their names in the file

RECIPES_OF_RCN = ("liver", "brain")
SIDE = 128  # of RCN's and DR-Net's volumes
COARSEST = 6  # the level of the last map of VTN's encoder
VARIABLE = re.compile(r"(?P<scope>(?:.*/)?(?:affine_stem|deform_stem_\d+)/)[^/]+/[Wb]")
# The program also saves the state of its optimiser: a W/Adam and W/Adam_1 for each W, and scalars.
OF_THE_OPTIMISER = re.compile(r"/[Wb]/[^/]+$")

_ENCODER = {
    f"conv{k + 1}{suffix}": f"encoder.levels.{k}.{second}.0"
    for k in range(6)
    for second, suffix in enumerate(("", "_1") if k >= 2 else ("",))
}
_VOXELMORPH = (
    *(f"conv{k + 1}" for k in range(4)),
    *("decode4", "decode3", "decode2", "decode1", "decode1_1", "decode0", "decode0_1", "flow"),
)
LAYERS: dict[str, dict[str, str]] = {
    "affine": {**_ENCODER, "conv7_W": "matrix", "conv7_b": "offset"},
    "vtn": {
        **_ENCODER,
        **{f"pred{6 - k}": f"predictions.{k}" for k in range(5)},
        **{f"upsamp{6 - k}to{5 - k}": f"up_predictions.{k}" for k in range(5)},
        **{f"deconv{5 - k}": f"up_features.{k}" for k in range(5)},
        "upsamp1to0": "heads.0",
    },
    "voxelmorph": dict(zip(_VOXELMORPH, VOXELMORPH_LAYERS, strict=True)),
}
TELLING = {"upsamp1to0": "vtn", "decode4": "voxelmorph"}  # a layer that only one network has


def read_rcn(file: Path, size: Size | None = None, recipe: str = "liver") -> Published:
    """Read an export of RCN's variables as a recursive cascade.

    Args:
        file: .npz, each variable under its name (docs/published.md has the script).
        size: sides of the volumes it was trained on; None means 128, or what the affine stem implies.
        recipe: how its images were made, `liver` or `brain`.

    Raises:
        ValueError: if the file is no such export, lacks variables, has others, or has shapes of no network.
    """
    check_choice("--recipe", recipe, RECIPES_OF_RCN)
    arrays = _arrays(file)
    affine, deform = _scopes(arrays, file)
    specs = [_spec(arrays, scope, file) for scope in deform]
    size = _size(arrays, affine, size, file)
    model = specs[0] if specs else {"name": "vtn"}
    strategy: dict[str, Any] = {"name": "cr"}
    if any(spec != model for spec in specs):
        strategy["stages"] = specs
    stage = {"name": "none" if affine is None else "learned"}
    with torch.device("meta"):
        cascade = build(model, strategy, len(specs), stage, size)
    networks = [(scope, spec["name"], f"nets.{k}") for k, (scope, spec) in enumerate(zip(deform, specs, strict=True))]
    if affine is not None:
        networks.append((affine, "affine", "affine"))
    layers = {
        scope + theirs: f"{key}.{ours}" for scope, network, key in networks for theirs, ours in LAYERS[network].items()
    }
    weights = converted(arrays, cascade, layers, ("W", "b"), "recursive cascade", file)
    made = build_recipe({"name": recipe, "size": list(size)}).as_dict()
    return Published(model, strategy, len(specs), stage, size, {"size": list(size), "recipe": made}, weights)


def _arrays(file: Path) -> Arrays:
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


def _scopes(arrays: Arrays, file: Path) -> tuple[str | None, list[str]]:
    """Find the scopes of the affine stem, if there is one, and of the deform stems in order."""
    matches = {name: VARIABLE.fullmatch(name) for name in arrays}
    strangers = [name for name, match in matches.items() if match is None]
    if not matches or strangers:
        found = f"{strangers[0]} is none" if strangers else "it has none"
        raise ValueError(
            f"{file} must hold variables of affine_stem and deform_stem_0, deform_stem_1, ... alone, and {found}."
        )
    scopes = {match["scope"] for match in matches.values() if match}
    named = {scope.split("/")[-2]: scope for scope in scopes}
    if len(named) < len(scopes):
        raise ValueError(f"{file} holds more than one model: {', '.join(sorted(scopes))}. Export them one by one.")
    affine = named.pop("affine_stem", None)
    order = [f"deform_stem_{k}" for k in range(len(named))]
    missing = sorted(set(order) - set(named))
    if missing:
        raise ValueError(f"{file} has {', '.join(sorted(named))}, but no {missing[0]}: export every variable.")
    return affine, [named[name] for name in order]


def _spec(arrays: Arrays, scope: str, file: Path) -> dict[str, Any]:
    """Find the network of a deform stem and its width."""
    networks = [network for layer, network in TELLING.items() if f"{scope}{layer}/W" in arrays]
    if len(networks) != 1:
        raise ValueError(
            f"{file}: {scope[:-1]} is neither a VTN (it would have a layer upsamp1to0) nor a VoxelMorph (decode4)."
        )
    width = _kernel_shape(arrays, f"{scope}conv1/W", file)[-1]
    if networks == ["vtn"]:
        return {"name": "vtn", "width": width}
    if width % 16:
        raise ValueError(f"{file}: {scope}conv1/W has {width} maps, and VoxelMorph's a multiple of 16.")
    return {"name": "voxelmorph", "width_multiplier": width // 16}


def _size(arrays: Arrays, affine: str | None, size: Size | None, file: Path) -> Size:
    """Find the sides of the volumes: the last layers of the affine stem span its whole last map."""
    if affine is None:
        return size or (SIDE, SIDE, SIDE)
    x, y, z = _kernel_shape(arrays, f"{affine}conv7_W/W", file)[:3]
    implied = (x * 2**COARSEST, y * 2**COARSEST, z * 2**COARSEST)
    if size is not None and level_size(size, COARSEST) != (x, y, z):
        raise ValueError(
            f"--size {' '.join(map(str, size))} does not fit the affine stem of {file}, which is for volumes of "
            f"{' '.join(map(str, implied))} voxels, or up to 63 fewer along an axis."
        )
    return size or implied


def _kernel_shape(arrays: Arrays, name: str, file: Path) -> tuple[int, ...]:
    if name not in arrays or arrays[name].ndim != 5:
        raise ValueError(f"{file} has no kernel {name}: export every variable of the checkpoint.")
    return arrays[name].shape
