"""Parsers of `train`, `evaluate`, `model`, `profile`, `import` and `export`."""

import argparse

from regcascade.cli.parsers.choices import EXPORTS, RECIPES_OF_RCN, in_group
from regcascade.cli.parsers.shared import Commands, add_imports, add_label_names, add_overwrite, add_path, add_size

OF_HYDRA = {  # Hydra parses the arguments of these
    "train": "train a cascade, as `python train.py` does",
    "evaluate": "evaluate a checkpoint or another method, as `python evaluate.py` does",
}


def add(commands: Commands) -> None:
    """Add these commands."""
    for name, about in OF_HYDRA.items():
        commands.add_parser(name, help=about, add_help=False)
    _add_model(commands)
    _add_profile(commands)
    _add_import(commands)
    _add_export(commands)


def _add_model(commands: Commands) -> None:
    parser = commands.add_parser(
        "model",
        help="print a model's parameters and size",
        description="Print the parameters of a model by part, their float32 size, and the size as DR-Net's paper "
        "counts it (weights and Adam's two moments, 12 bytes a parameter).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    networks, cascades = (", ".join(in_group(group)) for group in ("model", "cascade"))
    parser.add_argument("network", nargs="?", default="voxelmorph", help=f"one of {networks}, or yours")
    parser.add_argument("--cascade", default="cr", help=f"one of {cascades}, or yours")
    parser.add_argument("-n", type=int, default=1, help="deformable stages")
    parser.add_argument("--affine", default="none", choices=in_group("affine"), help="affine stage")
    add_size(parser, "sides of the volume", (128, 128, 128))
    add_imports(parser)


def _add_profile(commands: Commands) -> None:
    parser = commands.add_parser(
        "profile",
        help="time and memory of a training step, and how many stages fit",
        description="Time a registration and the parts of a training step on random images, estimate the memory of a "
        "step (weights, gradients, the optimiser's moments, activations), and predict how many stages fit. The "
        "estimate allocates nothing. It lacks the workspace of convolutions: add a tenth.",
        epilog="Examples: regcascade profile model=drnet cascade=mcr n=3 size=[128,128,128]; regcascade profile "
        "model=vtn n=10 trainer.recompute=stage trainer.precision=bf16-mixed --memory 12 --no-run.",
    )
    about = "options of train.py; size=[X,Y,Z] is the size of the images (data.size, or 128 a side if there is none)"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=about)
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each timing; the median counts (3)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="memory to fit stages into (what is free here)")
    parser.add_argument("--no-run", action="store_true", help="estimate the memory only")
    add_imports(parser)


def _add_import(commands: Commands) -> None:
    parser = commands.add_parser(
        "import",
        help="turn published weights into a checkpoint",
        description="Turn the published weights of VoxelMorph (Keras, .h5) or of RCN (TensorFlow, .npz) into a "
        "checkpoint that registers, evaluates and trains on. TensorFlow is not needed.",
    )
    parser.set_defaults(command="import_weights")
    kinds = parser.add_subparsers(required=True, metavar="KIND", dest="kind")
    voxelmorph = kinds.add_parser(
        "voxelmorph",
        help="a Keras file, .h5, of VoxelMorph's first networks",
        description="A Keras file of VoxelMorph's first networks (such as cvpr2018_vm2_l2.h5), trained on "
        "skull-stripped, normalised T1 brains.",
        epilog="Example: regcascade import voxelmorph cvpr2018_vm2_l2.h5 --out voxelmorph.ckpt",
    )
    _add_weights(voxelmorph, "160 192 224")
    about = "intensities that become 0..1: 1 0.5 (default) for images in 0..1, 255 127.5 for FreeSurfer's norm.mgz"
    window = ("WIDTH", "LEVEL")
    voxelmorph.add_argument("--window", type=float, nargs=2, default=(1.0, 0.5), metavar=window, help=about)
    rcn = kinds.add_parser(
        "rcn",
        help="RCN's variables, .npz",
        description="The variables of RCN's program, exported to .npz by their names (script in docs/published.md).",
        epilog="Example: regcascade import rcn vtn_10.npz --out vtn_10.ckpt --label-names 1=liver",
    )
    _add_weights(rcn, "128 128 128, or what the affine network implies")
    rcn.add_argument("--recipe", default="liver", choices=RECIPES_OF_RCN, help="how its scans were prepared (liver)")


def _add_weights(parser: argparse.ArgumentParser, size: str) -> None:
    add_path(parser, "file", "the published weights", "WEIGHTS")
    add_path(parser, "--out", "the checkpoint to write", "FILE.ckpt", required=True)
    add_label_names(parser)
    add_size(parser, f"sides of the volumes it was trained on ({size})")


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write a model for programs that know nothing of regcascade",
        description="Write a model as torch.export, as ONNX (extra export), or as a MONAI bundle. It takes fixed and "
        "moving images (B, 1, X, Y, Z) in 0..1 and returns the total flow in voxels and the moved image. It is loaded "
        "back and compared with the model before it takes its name.",
        epilog="Examples: regcascade export hippocampus --to torch-export --out hippocampus.pt2; regcascade export "
        "best.ckpt --to onnx --out best.onnx --size 128 128 128 -r 2; regcascade export hippocampus --to monai-bundle "
        "--out hippocampus.",
    )
    about = "model, or the name of one that comes with regcascade: hippocampus"
    add_path(parser, "checkpoint", about, "CHECKPOINT")
    parser.add_argument("--to", required=True, choices=EXPORTS, help="what to write")
    add_path(parser, "--out", "the file to write (.pt2, .onnx), or the folder of a bundle", required=True)
    add_overwrite(parser, "the file, or the bundle, that is there")
    add_size(parser, "sides of the volumes (those of the checkpoint)")
    parser.add_argument("-r", type=int, default=1, help="how often each network is applied (1)")
    about = "repeat each network in place, or the whole chain (stage)"
    parser.add_argument("--repeat", default="stage", choices=["stage", "chain"], help=about)
    add_imports(parser)
