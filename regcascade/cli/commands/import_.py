"""`regcascade import`: published weights of others as checkpoints."""

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from regcascade.cascades.published import RECIPES_OF_RCN, SIZE_OF_VOXELMORPH, Published, read_rcn, read_voxelmorph
from regcascade.cli.commands.arguments import Commands, key_and_value
from regcascade.data.options import check_size


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    import_ = commands.add_parser(
        "import",
        help="turn published weights into a checkpoint",
        description="Turn the published weights of VoxelMorph (Keras, .h5) or of recursive cascaded networks "
        "(TensorFlow, .npz) into a checkpoint that registers, evaluates and trains on. TensorFlow is not needed.",
    )
    kinds = import_.add_subparsers(required=True, metavar="KIND")
    voxelmorph = kinds.add_parser(
        "voxelmorph",
        help="a Keras file, .h5, of VoxelMorph's first networks",
        description="A Keras file of VoxelMorph's first networks (such as cvpr2018_vm2_l2.h5), trained on "
        "skull-stripped, normalised T1 brains.",
        epilog="Example: regcascade import voxelmorph cvpr2018_vm2_l2.h5 --out voxelmorph.ckpt",
    )
    _shared_arguments(voxelmorph, "160 192 224")
    voxelmorph.add_argument(
        "--window",
        type=float,
        nargs=2,
        default=(1.0, 0.5),
        metavar=("WIDTH", "LEVEL"),
        help="intensities that become 0..1: 1 0.5 (default) for images in 0..1, 255 127.5 for FreeSurfer's norm.mgz",
    )
    voxelmorph.set_defaults(run=_import_voxelmorph)
    rcn = kinds.add_parser(
        "rcn",
        help="the first paper's variables, .npz",
        description="The variables of a model of the first paper's program, exported to .npz by their names "
        "(docs/published.md has the script).",
        epilog="Example: regcascade import rcn vtn_10.npz --out vtn_10.ckpt --label-names 1=liver",
    )
    _shared_arguments(rcn, "128 128 128, or what the affine network implies")
    rcn.add_argument("--recipe", default="liver", choices=RECIPES_OF_RCN, help="how its scans were prepared (liver)")
    rcn.set_defaults(run=_import_rcn)


def _shared_arguments(parser: argparse.ArgumentParser, size: str) -> None:
    parser.add_argument("file", type=Path, help="the published weights")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.ckpt", help="the checkpoint to write")
    parser.add_argument("--label-names", nargs="*", default=[], metavar="VALUE=NAME", help="1=liver 2=tumour")
    parser.add_argument(
        "--size", type=int, nargs=3, metavar=("X", "Y", "Z"), help=f"sides of the volumes it was trained on ({size})"
    )


def _import_voxelmorph(options: argparse.Namespace) -> None:
    _check_files(options)
    width, level = options.window
    size = SIZE_OF_VOXELMORPH if options.size is None else check_size("--size", options.size)
    _write(read_voxelmorph(options.file, size, (width, level)), options)


def _import_rcn(options: argparse.Namespace) -> None:
    _check_files(options)
    size = None if options.size is None else check_size("--size", options.size)
    _write(read_rcn(options.file, size, options.recipe), options)


def _check_files(options: argparse.Namespace) -> None:
    if not options.file.is_file():
        raise ValueError(f"There is no file {options.file}.")
    if not options.out.parent.is_dir():
        raise ValueError(f"--out {options.out}: there is no folder {options.out.parent}.")


def _write(model: Published, options: argparse.Namespace) -> None:
    names = {int(value): name for value, name in map(key_and_value, options.label_names)}
    model.write(options.out, names)
    count = sum(weight.numel() for weight in model.weights.values())
    console = Console()
    console.print(f"Written: {options.out} ({count:,} parameters).", markup=False, soft_wrap=True)
    console.print(f"Train on from it: {shlex.join(_training(model, options.out))}", markup=False, soft_wrap=True)


def _training(model: Published, checkpoint: Path) -> list[str]:
    """The command of a training that starts from a checkpoint of this model."""
    parts = ["python", "train.py", f"init={checkpoint}", f"cascade={model.cascade['name']}"]
    if "stages" in model.cascade:
        stages = (",".join(f"{key}:{value}" for key, value in spec.items()) for spec in model.cascade["stages"])
        parts.append(f"cascade.stages=[{','.join('{' + stage + '}' for stage in stages)}]")
    else:
        chosen = [f"model{'' if key == 'name' else '.' + key}={value}" for key, value in model.model.items()]
        parts += [*chosen, f"n={model.n}"]
    return [*parts, f"affine={model.affine['name']}"]
