"""`regcascade invert`: the inverse of a saved transform, and how far it can be trusted."""

import argparse
from pathlib import Path

from rich.console import Console

from regcascade.cli.commands.arguments import Commands
from regcascade.data.io.images import read_header
from regcascade.data.io.transforms import check_suffix, knows_moving, read_transform, write_transform
from regcascade.geometry.transform import TOLERANCE_MM
from regcascade.utils.files import check_output


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    invert = commands.add_parser(
        "invert",
        help="invert a saved transform",
        description="Invert a transform that `regcascade register`, SimpleITK or ANTs wrote: the result brings the "
        "fixed scan onto the moving one, on the moving scan's grid. Prints by how much going there and back misses, "
        "and how much of the moving scan has no counterpart.",
        epilog="Example: regcascade invert transform.h5 --out inverse.h5",
    )
    invert.add_argument("transform", type=Path, metavar="TRANSFORM", help=".h5, .tfm or a displacement image")
    invert.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".h5, .tfm, or .nii.gz, .mha, .nrrd (a displacement)"
    )
    invert.add_argument(
        "--moving", type=Path, metavar="IMAGE", help="the moving scan, whose grid only our .h5 files know themselves"
    )
    invert.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    invert.set_defaults(run=_invert)


def _invert(options: argparse.Namespace) -> None:
    check_suffix(options.out)
    check_output(options.out, options.overwrite)
    moving = None if options.moving is None else read_header(options.moving)
    transform = read_transform(options.transform, moving)
    console = Console()
    if moving is None and not knows_moving(options.transform):
        console.print(
            f"{options.transform} does not tell the moving scan's grid (--moving); the fixed scan's is taken.",
            markup=False,
        )
    inverse = transform.inverse()
    if not inverse.reached.any():
        raise ValueError(f"nothing of the moving scan lies in the fixed one by {options.transform}: is --moving right?")
    write_transform(inverse.transform, options.out)
    residual = inverse.residual_mm[inverse.reached]
    console.print(f"There and back misses by {residual.mean():.5f} mm on average, {residual.max():.5f} mm at most.")
    missed = int((inverse.residual_mm > TOLERANCE_MM).sum())
    console.print(
        f"{1 - inverse.reached.mean():.2%} of the moving scan has no inverse: it lies beyond the fixed scan, or (at "
        f"{missed} voxels) the field folds."
    )
    console.print(f"Written: {options.out}.", markup=False, soft_wrap=True)
