"""VoxelMorph's published Keras weights (Balakrishnan et al., CVPR 2018), the network of RCN and DR-Net too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from regcascade.cascades import build
from regcascade.cascades.published.conversion import VOXELMORPH_LAYERS, Published, converted
from regcascade.data.io.hdf5 import opened
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.types import Size

if TYPE_CHECKING:
    import h5py

SIZE_OF_VOXELMORPH: Size = (160, 192, 224)
SLOPE = 0.2  # of LeakyReLU, where the file does not say


def read_voxelmorph(
    file: Path, size: Size = SIZE_OF_VOXELMORPH, window: tuple[float, float] = (1.0, 0.5), orientation: str = "LIA"
) -> Published:
    """Read a Keras file of VoxelMorph, a whole model or its weights alone, as a cascade of one stage.

    Inputs keep their order (moving first). The flow keeps its meaning: voxels, channel a along axis a, added to the
    position in the fixed scan.

    Args:
        file: HDF5, of the architecture that RCN and DR-Net call VoxelMorph ("vm2"), at any width.
        size: sides of the volumes it was trained on.
        window: (width, level) that maps its images to 0..1: (1, 0.5) for images in 0..1, (255, 127.5) for FreeSurfer's
            `norm.mgz`, of which it was trained on 1/255.
        orientation: of the array axes of its images: left, inferior, anterior, FreeSurfer's.

    Raises:
        ValueError: if the file is no Keras file, or of another network.
    """
    with opened(file) as content:
        layers, config = _layers(content, file), _text(content.attrs.get("model_config", ""))
    if len(layers) != len(VOXELMORPH_LAYERS):
        raise ValueError(
            f"{file} has {len(layers)} convolutions, and VoxelMorph of RCN and DR-Net {len(VOXELMORPH_LAYERS)}: these "
            "weights are of another network, which regcascade does not have."
        )
    width = int(next(iter(layers.values()))["kernel"].shape[-1])
    if width % 16 or not width:
        raise ValueError(f"{file}: its first convolution has {width} maps, and VoxelMorph's a multiple of 16.")
    model: dict[str, Any] = {
        "name": "voxelmorph", "width_multiplier": width // 16,
        "negative_slope": _slope(config), "input_order": "moving_first",
    }  # fmt: skip
    with torch.device("meta"):
        cascade = build(model, "cr", 1)
    arrays = {f"{layer}/{kind}": array for layer, kinds in layers.items() for kind, array in kinds.items()}
    modules = {theirs: f"nets.0.{ours}" for theirs, ours in zip(layers, VOXELMORPH_LAYERS, strict=True)}
    weights = converted(arrays, cascade, modules, ("kernel", "bias"), f"VoxelMorph of width {width}", file)
    steps = Preprocessing(size=size, fit="crop_pad", intensity="window", window=window)
    preprocessing = steps.as_dict() | {"orientation": orientation, "spacing": [1.0, 1.0, 1.0]}
    return Published(model, {"name": "cr"}, 1, {"name": "none"}, size, preprocessing, weights)


def _layers(content: "h5py.File", file: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read `kernel` and `bias` of each layer that has any, in the order of the model."""
    group = content.get("model_weights", content)
    if "layer_names" not in group.attrs:
        raise ValueError(f"{file} is no Keras file of weights: it lists no layer_names.")
    layers = {}
    for name in map(_text, group.attrs["layer_names"]):
        if name not in group:
            raise ValueError(f"{file} lists the layer {name} and does not hold it: it is damaged, get it again.")
        found: list[tuple[str, Any]] = []
        group[name].visititems(lambda *item, found=found: found.append(item))
        arrays = {
            path.rsplit("/", 1)[-1].removesuffix(":0"): item[()] for path, item in found if hasattr(item, "dtype")
        }
        if arrays:
            layers[name] = arrays
    return layers


def _slope(config: str) -> float:
    """Find the slope of LeakyReLU in the JSON description of the model, which may be empty."""
    try:
        layers = json.loads(config)["config"]["layers"] if config else []
    except (ValueError, KeyError, TypeError):
        layers = []
    for layer in layers:
        if isinstance(layer, Mapping) and layer.get("class_name") == "LeakyReLU":
            options = layer.get("config", {})
            slope = options.get("alpha", options.get("negative_slope", SLOPE))
            return round(float(slope), 6)  # written as float32
    return SLOPE


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
