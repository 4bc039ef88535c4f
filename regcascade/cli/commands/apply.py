"""`regcascade apply`: take an image, a label map or points through a saved transform."""

import argparse

import numpy as np

from regcascade.cli.console import say
from regcascade.data.io.images import read_header
from regcascade.data.io.itk_images import WRITTEN, read_scan, write_scan
from regcascade.data.io.point_tables import SUFFIXES, from_world, read_table, to_world, write_table
from regcascade.data.io.transforms import knows_moving, read_transform
from regcascade.geometry.grid import Geometry
from regcascade.geometry.transform import Transform
from regcascade.utils.files import check_output


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    points = options.file.suffix.lower() in SUFFIXES
    _check(options, points)
    moving = None if options.moving is None else read_header(options.moving)
    transform = read_transform(options.transform, moving)
    knows = moving is not None or knows_moving(options.transform)
    (_points if points else _volume)(options, transform, knows)
    say(f"Written: {options.out}.")


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


def _volume(options: argparse.Namespace, transform: Transform, knows: bool) -> None:
    image = read_scan(options.file)
    like = None if options.like is None else read_header(options.like)
    if options.direction == "to-moving":
        if not (knows or like):
            raise ValueError(
                f"{options.transform} does not tell the moving scan's grid: give --moving or --like IMAGE."
            )
        if like is not None:  # where the inverse is wanted
            transform = Transform(transform.fixed, like, transform.affine, transform.displacement)
        inverse = transform.inverse()
        say(f"{1 - inverse.reached.mean():.1%} of the result lies beyond the fixed scan or has no inverse.")
        transform = inverse.transform
    if not transform.meets(Geometry.of_image(image)):
        raise ValueError(
            f"nothing of {options.file} lies in the field of {options.transform}: it is of another space than the "
            f"{'moving' if options.direction == 'to-fixed' else 'fixed'} scan, or its header is wrong. "
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


def _points(options: argparse.Namespace, transform: Transform, knows: bool) -> None:
    table = read_table(options.file)
    unit = table.unit or options.points_unit or "voxels"
    if options.points_unit not in (None, unit):
        raise ValueError(f"--points-unit {options.points_unit} is not for {options.file}, which says it is {unit}.")
    to_fixed = options.direction == "to-fixed"
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
        say(
            f"{beyond} of {given.sum()} points lie beyond the fixed scan, where the field is continued from its border"
            + (f"; {lost} of them have no counterpart and are left empty." if lost else ".")
        )
    write_table(options.out, table, from_world(after, unit, target), after)
