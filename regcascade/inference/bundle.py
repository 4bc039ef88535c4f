"""Write a cascade as a MONAI bundle: MONAI's tools load and run it without regcascade."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import __version__ as monai_version
from monai.bundle.config_parser import ConfigParser
from monai.data.torchscript_utils import save_net_with_metadata
from torch import Tensor, nn

from regcascade.cascades.checkpoint import Checkpoint
from regcascade.types import size_of
from regcascade.utils.files import write_json
from regcascade.utils.version import __version__

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
FOLDERS = {"configs", "docs", "models"}
METADATA, INFERENCE = "configs/metadata.json", "configs/inference.json"
SCRIPT, WEIGHTS, README = "models/model.ts", "models/model.pt", "docs/README.md"
FLOW_CHANNELS = [f"displacement along array axis {axis}, in voxels" for axis in range(3)]

CONFIG: dict[str, Any] = {
    "imports": ["$import torch", "$from monai.data import MetaTensor"],
    "bundle_root": ".",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "dataset_dir": "$@bundle_root + '/data'",
    "output_dir": "$@bundle_root + '/output'",
    "pairs": "$[{'fixed': @dataset_dir + '/fixed.nii.gz', 'moving': @dataset_dir + '/moving.nii.gz'}]",
    "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location='cpu').eval()",
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": ["fixed", "moving"], "ensure_channel_first": True},
            {"_target_": "ConcatItemsd", "keys": ["fixed", "moving"], "name": "image"},
            {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False},
        ],
    },
    "dataset": {"_target_": "Dataset", "data": "@pairs", "transform": "@preprocessing"},
    "inferer": {"_target_": "SimpleInferer"},
    "save_flow": {"_target_": "SaveImage", "output_dir": "@output_dir", "output_postfix": "flow", "resample": False},
    "save_moved": {"_target_": "SaveImage", "output_dir": "@output_dir", "output_postfix": "moved", "resample": False},
    "predict": "$lambda image: @inferer(image[None].to(@device), @network)[0].cpu()",
    "on_fixed": "$lambda volume, pair: MetaTensor(volume, affine=pair['fixed'].affine, "
    "meta={'filename_or_obj': pair['moving'].meta['filename_or_obj']})",
    "write": "$lambda pred, pair: (@save_flow(@on_fixed(pred[:3], pair)), @save_moved(@on_fixed(pred[3:], pair)))",
    "run": ["$[@write(@predict(pair['image']), pair) for pair in @dataset]"],
}


class InOneTensor(nn.Module):
    """The network as MONAI's tools expect one: an image of two channels in, one tensor out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Map fixed and moving, `(B, 2, X, Y, Z)`, to the flow and the moved image, `(B, 4, X, Y, Z)`."""
        return torch.cat(self.network(image[:, :1], image[:, 1:]), dim=1)


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle and nothing else."""
    return (folder / METADATA).is_file() and {path.name for path in folder.iterdir()} <= FOLDERS


def write_bundle(
    network: nn.Module, example: tuple[Tensor, Tensor], checkpoint: Checkpoint, name: str, folder: Path
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Write a bundle into an empty folder, and load it back by its own configs.

    Args:
        network: maps fixed and moving to flow and moved image.
        example: fixed and moving images to trace it with.
        checkpoint: what it was built from; a model card beside it, `NAME.md`, goes into `docs/README.md`.
        name: of the bundle.
        folder: to write into.

    Returns:
        What was written, as a function of fixed and moving images.
    """
    for part in FOLDERS:
        (folder / part).mkdir()
    about = metadata(checkpoint, size_of(example[0]), name)
    write_json(folder / METADATA, about)
    write_json(folder / INFERENCE, CONFIG)
    (folder / README).write_text(_readme(checkpoint, about), encoding="utf-8")
    one = InOneTensor(network).eval()
    traced = torch.jit.trace(one, torch.cat([pair[:1] for pair in example], dim=1), check_trace=False)
    save_net_with_metadata(traced, str(folder / SCRIPT), meta_values=about)
    torch.save(one.state_dict(), folder / WEIGHTS)

    parser = ConfigParser()
    parser.read_config(folder / INFERENCE)
    parser.read_meta(folder / METADATA)
    parser["bundle_root"] = str(folder)
    loaded = parser.get_parsed_content("network_def")

    def run(fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        both = loaded(torch.cat([fixed, moving], dim=1))
        return both[:, :3], both[:, 3:]

    return run


def metadata(checkpoint: Checkpoint, size: tuple[int, int, int], name: str) -> dict[str, Any]:
    """Describe the bundle as MONAI's specification asks."""
    description = checkpoint.description
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by regcascade {__version__}"},
        "monai_version": monai_version,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "optional_packages_version": {"nibabel": "5.2.0"},
        "name": name,
        "task": "Deformable registration of two 3D images",
        "description": "Deforms a moving image onto a fixed one: moved(p) = moving(p + flow(p)), p in voxels, beyond "
        f"the border its nearest value. A cascade of networks: {checkpoint.summary}.",
        "authors": "see docs/README.md",
        "copyright": "see docs/README.md",
        "intended_use": "Research; not for diagnosis or treatment. See docs/README.md.",
        "preprocessing": json.loads(json.dumps(description["preprocessing"])),
        "network_data_format": {
            "inputs": {"image": _tensor(["fixed image", "moving image"], size, [0, 1])},
            "outputs": {"pred": _tensor([*FLOW_CHANNELS, "moved image"], size, [])},
        },
    }


def _tensor(channels: list[str], size: tuple[int, int, int], value_range: list[int]) -> dict[str, Any]:
    return {
        "type": "image", "format": "magnitude", "modality": "n/a", "num_channels": len(channels),
        "spatial_shape": list(size), "dtype": "float32", "value_range": value_range, "is_patch_data": False,
        "channel_def": {str(number): channel for number, channel in enumerate(channels)},
    }  # fmt: skip


def _readme(checkpoint: Checkpoint, about: dict[str, Any]) -> str:
    card = checkpoint.path.with_suffix(".md")
    sides = " x ".join(map(str, about["network_data_format"]["inputs"]["image"]["spatial_shape"]))
    made = "\n".join(f"- {key}: {value}" for key, value in about["preprocessing"].items())
    return f"""# {about["name"]}

{about["description"]}

`models/model.ts` maps `(B, 2, X, Y, Z)` float32, the fixed and the moving image in 0..1 on one grid of {sides} voxels,
to `(B, 4, X, Y, Z)`: the flow in voxels along the three array axes, and the moved image.

```
python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\
  --bundle_root . --dataset_dir DIR --output_dir OUT
```

reads `DIR/fixed.nii.gz` and `DIR/moving.nii.gz`, and writes the flow and the moved image. It prepares nothing: images
must be on that grid, in that range, and made as in training:

{made}

{card.read_text(encoding="utf-8") if card.is_file() else "There was no model card beside the checkpoint."}"""
