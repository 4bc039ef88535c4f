"""`regcascade apply`: a saved transform on an image, a label map or points."""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from regcascade.cli.commands.arguments import Commands
from regcascade.data.io.images import read_header
from regcascade.data.io.itk_images import WRITTEN, read_scan, write_scan
from regcascade.data.io.point_tables import UNITS, from_world, read_table, to_world, write_table
from regcascade.data.io.transforms import knows_moving, read_transform
from regcascade.geometry.grid import Geometry
from regcascade.geometry.transform import Transform
from regcascade.utils.files import check_output

TO_FIXED, TO_MOVING = "to-fixed", "to-moving"


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    apply = commands.add_parser(
        "apply",
        help="take an image, labels or points through a saved transform",
        description="Take an image, a label map or points through a transform that `regcascade register`, SimpleITK or "
        "ANTs wrote. By default what belongs to the moving scan is brought onto the fixed one.",
        epilog="Examples: regcascade apply transform.h5 t2.nii.gz --out t2_moved.nii.gz; regcascade apply transform.h5 "
        "organs.nii.gz --labels --out organs_moved.nii.gz; regcascade apply transform.h5 landmarks.csv --out "
        "landmarks_moved.csv; regcascade apply transform.h5 atlas.nii.gz --labels --direction to-moving --out "
        "back.nii.gz",
    )
    apply.add_argument("transform", type=Path, metavar="TRANSFORM", help=".h5, .tfm or a displacement image")
    apply.add_argument(
        "file", type=Path, metavar="FILE", help="an image, a DICOM folder, or a CSV of points with the columns x, y, z"
    )
    apply.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    apply.add_argument("--labels", action="store_true", help="FILE is a label map, whose values must not be mixed")
    apply.add_argument(
        "--interpolation",
        choices=("nearest", "linear"),
        help="of labels: the nearest voxel's (default), or the label with the largest trilinear share",
    )
    apply.add_argument("--like", type=Path, metavar="IMAGE", help="whose grid the result takes, in its own world")
    apply.add_argument("--fill", type=float, metavar="V", help="where the image ends; its minimum by default")
    apply.add_argument(
        "--points-unit",
        choices=UNITS,
        help="of a CSV, read and written: voxels of its own image counted from 0 (default), mm in nibabel's frame "
        "(ras), mm in ITK's, ANTs' and Slicer's (lps)",
    )
    apply.add_argument(
        "--direction",
        choices=(TO_FIXED, TO_MOVING),
        default=TO_FIXED,
        help="what is the moving scan's goes to the fixed one (default), or the other way, by the inverse for images",
    )
    apply.add_argument(
        "--moving", type=Path, metavar="IMAGE", help="the moving scan, whose grid only our .h5 files know themselves"
    )
    apply.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    apply.set_defaults(run=_apply)


def _apply(options: argparse.Namespace) -> None:
    points = options.file.suffix.lower() == ".csv"
    _check(options, points)
    moving = None if options.moving is None else read_header(options.moving)
    transform = read_transform(options.transform, moving)
    knows = moving is not None or knows_moving(options.transform)
    console = Console()
    (_points if points else _volume)(options, transform, knows, console)
    console.print(f"Written: {options.out}.", markup=False, soft_wrap=True)


def _check(options: argparse.Namespace, points: bool) -> None:
    """Raise ValueError for options that do not belong together, before any work."""
    wrong = {
        "--labels": points and options.labels,
        "--fill": (points or options.labels) and options.fill is not None,
        "--interpolation": not options.labels and options.interpolation is not None,
        "--points-unit": not points and options.points_unit is not None,
    }
    for option, given in wrong.items():
        if given:
            kind = "points" if points else "a label map" if options.labels else "an image"
            hint = " Give --labels if it is a label map." if option == "--interpolation" and not points else ""
            raise ValueError(f"{option} is not for {options.file}, which is taken for {kind}.{hint}")
    if points and options.out.suffix.lower() != ".csv":
        raise ValueError(f"--out {options.out}: points are written as .csv.")
    if not points and not options.out.name.lower().endswith(WRITTEN):
        raise ValueError(f"--out {options.out}: an image is written as one of {', '.join(WRITTEN)}.")
    check_output(options.out, options.overwrite)


def _volume(options: argparse.Namespace, transform: Transform, knows: bool, console: Console) -> None:
    image = read_scan(options.file)
    like = None if options.like is None else read_header(options.like)
    if options.direction == TO_MOVING:
        if not (knows or like):
            raise ValueError(
                f"{options.transform} does not tell the moving scan's grid: give --moving or --like IMAGE."
            )
        if like is not None:  # where the inverse is wanted
            transform = Transform(transform.fixed, like, transform.affine, transform.displacement)
        inverse = transform.inverse()
        console.print(f"{1 - inverse.reached.mean():.1%} of the result lies beyond the fixed scan or has no inverse.")
        transform = inverse.transform
    if not transform.meets(Geometry.of_image(image)):
        raise ValueError(
            f"nothing of {options.file} lies in the field of {options.transform}: it is of another space than the "
            f"{'moving' if options.direction == TO_FIXED else 'fixed'} scan, or its header is wrong. "
            "--direction chooses which way to go."
        )
    try:
        if options.labels:
            moved = transform.warp_labels(image, options.interpolation or "nearest", like)
        else:
            moved = transform.warp_image(image, like, options.fill)
    except ValueError as error:
        raise ValueError(f"{options.file}: {error}") from error
    write_scan(moved, options.out)


def _points(options: argparse.Namespace, transform: Transform, knows: bool, console: Console) -> None:
    table = read_table(options.file)
    unit = options.points_unit or "voxels"
    to_fixed = options.direction == TO_FIXED
    if unit == "voxels" and not knows and (to_fixed or options.like is None):
        raise ValueError(
            f"{options.transform} does not tell the moving scan's grid, which points in voxels need: give --moving "
            "IMAGE, or points in mm with --points-unit."
        )
    source, target = (transform.moving, transform.fixed) if to_fixed else (transform.fixed, transform.moving)
    target = target if options.like is None else read_header(options.like)
    before = to_world(table.points, unit, source)
    after = transform.points_to_fixed(before) if to_fixed else transform.points_to_moving(before)
    given = ~np.isnan(before).any(1)
    inside = transform.fixed.contains(after if to_fixed else before)
    if not inside.any():
        raise ValueError(
            f"none of the {given.sum()} points of {options.file} lies in the field of {options.transform}. They were "
            f"read as {unit} (--points-unit) of the {'moving' if to_fixed else 'fixed'} scan (--direction)."
        )
    beyond, lost = int((given & ~inside).sum()), int((given & np.isnan(after).any(1)).sum())
    if beyond:
        console.print(
            f"{beyond} of {given.sum()} points lie beyond the fixed scan, where the field is continued from its border"
            + (f"; {lost} of them have no counterpart and are left empty." if lost else ".")
        )
    write_table(options.out, table, from_world(after, unit, target), after)
