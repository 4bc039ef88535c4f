"""`regcascade invert`: invert a saved transform, and say how far the inverse can be trusted."""

import argparse

from regcascade.cli.console import say
from regcascade.data.io.images import read_header
from regcascade.data.io.transforms import check_suffix, knows_moving, read_transform, write_transform
from regcascade.geometry.transform import TOLERANCE_MM
from regcascade.utils.files import check_output


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    check_suffix(options.out)
    check_output(options.out, options.overwrite)
    moving = None if options.moving is None else read_header(options.moving)
    transform = read_transform(options.transform, moving)
    if moving is None and not knows_moving(options.transform):
        say(f"{options.transform} does not tell the moving scan's grid (--moving); the fixed scan's is taken.")
    inverse = transform.inverse()
    if not inverse.reached.any():
        raise ValueError(f"nothing of the moving scan lies in the fixed one by {options.transform}: is --moving right?")
    write_transform(inverse.transform, options.out)
    residual = inverse.residual_mm[inverse.reached]
    say(f"There and back misses by {residual.mean():.5f} mm on average, {residual.max():.5f} mm at most.")
    missed = int((inverse.residual_mm > TOLERANCE_MM).sum())
    say(
        f"{1 - inverse.reached.mean():.2%} of the moving scan has no inverse: it lies beyond the fixed scan, or (at "
        f"{missed} voxels) the field folds."
    )
    say(f"Written: {options.out}.")
