"""Parsers of `prepare`, `register`, `apply` and `invert`, which read and write scans."""

import argparse
import os
from pathlib import Path

from regcascade.cli.parsers import choices
from regcascade.cli.parsers.shared import Commands, add_imports, add_label_names, add_overwrite


def add(commands: Commands) -> None:
    """Add these commands."""
    _add_prepare(commands)
    _add_register(commands)
    _add_apply(commands)
    _add_invert(commands)


def _add_prepare(commands: Commands) -> None:
    parser = commands.add_parser(
        "prepare",
        help="turn raw scans into ready cases",
        description="Turn raw scans (NIfTI, MetaImage, NRRD, DICOM folders, ...) into a folder of ready cases that "
        "data=prepared trains on. A run that was stopped goes on where it was; a bad scan is left out and listed, and "
        "the exit status is then 1.",
        epilog="Examples: regcascade prepare Task08_HepaticVessel --out prepared/vessel --recipe liver; "
        "regcascade prepare OASIS --images '*/t1.nii.gz' --labels '*/seg.nii.gz' --out prepared/oasis "
        "--recipe brain --set mask=labels size=[160,192,160]; regcascade prepare scans.csv --out prepared/own.",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="a Decathlon folder (with dataset.json); a folder, with --images; the JSON of RCN's HDF5 files; or a "
        f"table, CSV or JSON, with the columns {', '.join(choices.SCAN_COLUMNS)}, of which image is a must",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--list",
        type=Path,
        metavar="NAME",
        help="take what follows from the list of a public set: the name of one that comes with regcascade (sliver, "
        "lpba, ...), or a file laid out as those of data/lists. What is given here wins",
    )
    parser.add_argument(
        "--recipe", help=f"one of {', '.join(choices.RECIPES)}, or a YAML file with its options; generic by default"
    )
    _add_set(parser, "options of the recipe: size=[96,96,96]")
    parser.add_argument("--images", help="glob of the images below the folder: '*/t1.nii.gz'; DICOM folders too")
    parser.add_argument("--labels", help="glob of the label maps, its wildcards standing for the same text")
    parser.add_argument("--masks", help="glob of the masks, likewise")
    parser.add_argument("--points", help="glob of the landmarks, likewise: CSV files of voxel coordinates x, y, z")
    add_label_names(parser)
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="names of scans to leave out, one a line")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--store", default="float32", choices=choices.STORED, help="how images are stored")
    parser.add_argument(
        "--align",
        metavar="SCAN",
        help="align every scan to this one by an affine map, for affine=precomputed: one of their names, or the file "
        "of a prepared case, such as the atlas of another set",
    )
    group = parser.add_argument_group("for RCN's HDF5 files")
    group.add_argument("--subset", nargs="+", default=[], metavar="NAME", help="the subsets of the JSON to prepare")
    group.add_argument("--scans", metavar="PATTERN", help="only scans whose names in the JSON match: 'youyi/*'")
    group.add_argument(
        "--adjacent", action="store_true", help="scans that follow each other, two by two, are of one group: LSPIG's"
    )
    group.add_argument(
        "--spacing", nargs=3, type=float, metavar="MM", help="mm per voxel along each axis, which they do not say: 1"
    )
    group.add_argument("--axes", metavar="RAS", help="where their axes lead, which they do not say: RAS")


def _add_register(commands: Commands) -> None:
    parser = commands.add_parser(
        "register",
        help="register two scans, or many pairs, with a trained model",
        description="Register MOVING onto FIXED with a trained model, in native space: scans of any format, size, "
        "spacing and orientation, or DICOM folders. Writes the moved scan on the fixed one's grid, the displacement "
        "and its inverse as ITK, ANTs, elastix and Slicer apply them, the moved labels and landmarks, a Jacobian map, "
        "a report and a picture.",
        epilog="Examples: regcascade register fixed.nii.gz moving.nii.gz --checkpoint best.ckpt --out result; "
        "regcascade register fixed.mha dicom_folder --checkpoint best.ckpt --out result --moving-labels organs.nii.gz "
        "--initial moments --refine 50; regcascade register --pairs pairs.csv --checkpoint best.ckpt --out results.",
    )
    parser.add_argument("fixed", type=Path, nargs="?", metavar="FIXED", help="the scan to meet")
    parser.add_argument("moving", type=Path, nargs="?", metavar="MOVING", help="the scan to deform")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="of the model, or the name of one that comes with regcascade: hippocampus",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    add_overwrite(parser, "the registration that DIR holds")
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="TABLE",
        help="many pairs in place of FIXED and MOVING: a CSV or JSON with the columns fixed and moving, or a folder of "
        "folders with fixed.* and moving.*; each goes to a folder of DIR, and a run that was stopped goes on",
    )
    _add_files(parser.add_argument_group("what lies beside the scans"))
    _add_how(parser.add_argument_group("how"))


def _add_files(group: argparse._ArgumentGroup) -> None:
    for role in ("fixed", "moving"):
        group.add_argument(f"--{role}-labels", type=Path, metavar="FILE", help=f"label map of the {role} scan")
        group.add_argument(
            f"--{role}-points", type=Path, metavar="FILE", help="landmarks, a CSV of its voxel coordinates x,y,z"
        )
        group.add_argument(f"--{role}-mask", type=Path, metavar="FILE", help="outside which its image is black")
        group.add_argument(f"--{role}-series", metavar="UID", help="the series, where a DICOM folder holds several")


def _add_how(group: argparse._ArgumentGroup) -> None:
    initials = "; ".join(f"{name}: {meaning}" for name, meaning in choices.INITIALS.items())
    group.add_argument(
        "--initial", default="trained", choices=list(choices.INITIALS), help=f"{initials} (default trained)"
    )
    group.add_argument("-r", type=int, default=1, help="how often each network is applied (1)")
    group.add_argument(
        "--repeat", default="stage", choices=["stage", "chain"], help="each in place, or the whole chain"
    )
    group.add_argument("--refine", type=int, default=0, metavar="N", help="steps of optimisation on this pair (0)")
    group.add_argument("--refine-of", default="flow", choices=choices.REFINE_OF, help="what they change (flow)")
    group.add_argument(
        "--refine-loss", default="trained", choices=choices.REFINE_LOSSES, help="what they lower (the training's)"
    )
    group.add_argument("--labels", default="nearest", choices=["nearest", "linear"], help="how labels are warped")
    group.add_argument("--fill", type=float, metavar="VALUE", help="beyond the moving scan (its smallest intensity)")
    group.add_argument(
        "--format", default="itk", choices=choices.FORMATS, help="learn2reg: that challenge's displacement too"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    group.add_argument("--precision", default="32", choices=choices.PRECISIONS, help="of the networks (32)")
    group.add_argument(
        "--jacobian-threshold",
        type=float,
        metavar="PERCENT",
        help="end with status 1 if more of the voxels than this fold (the results are written all the same)",
    )
    group.add_argument("--recipe", help="how images are made, if the checkpoint does not say: see regcascade prepare")
    _add_set(group, "options of the recipe")
    add_imports(group)


def _add_apply(commands: Commands) -> None:
    parser = commands.add_parser(
        "apply",
        help="take an image, labels or points through a saved transform",
        description="Take an image, a label map or points through a transform that `regcascade register`, SimpleITK or "
        "ANTs wrote. By default what belongs to the moving scan is brought onto the fixed one.",
        epilog="Examples: regcascade apply transform.h5 t2.nii.gz --out t2_moved.nii.gz; regcascade apply transform.h5 "
        "organs.nii.gz --labels --out organs_moved.nii.gz; regcascade apply transform.h5 landmarks.csv --out "
        "landmarks_moved.csv; regcascade apply transform.h5 atlas.nii.gz --labels --direction to-moving --out "
        "back.nii.gz",
    )
    _add_transform(parser)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="an image, a DICOM folder, or a CSV of points with the columns x, y, z"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--labels", action="store_true", help="FILE is a label map, whose values must not be mixed")
    parser.add_argument(
        "--interpolation",
        choices=("nearest", "linear"),
        help="of labels: the nearest voxel's (default), or the label with the largest trilinear share",
    )
    parser.add_argument("--like", type=Path, metavar="IMAGE", help="whose grid the result takes, in its own world")
    parser.add_argument("--fill", type=float, metavar="V", help="where the image ends; its minimum by default")
    parser.add_argument(
        "--points-unit",
        choices=choices.UNITS,
        help="of a CSV, read and written: voxels of its own image counted from 0 (default), mm in nibabel's frame "
        "(ras), mm in ITK's, ANTs' and Slicer's (lps)",
    )
    parser.add_argument(
        "--direction",
        choices=("to-fixed", "to-moving"),
        default="to-fixed",
        help="what is the moving scan's goes to the fixed one (default), or the other way, by the inverse for images",
    )


def _add_invert(commands: Commands) -> None:
    parser = commands.add_parser(
        "invert",
        help="invert a saved transform",
        description="Invert a transform that `regcascade register`, SimpleITK or ANTs wrote: the result brings the "
        "fixed scan onto the moving one, on the moving scan's grid. Prints by how much going there and back misses, "
        "and how much of the moving scan has no counterpart.",
        epilog="Example: regcascade invert transform.h5 --out inverse.h5",
    )
    _add_transform(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".h5, .tfm, or .nii.gz, .mha, .nrrd (a displacement)"
    )


def _add_transform(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("transform", type=Path, metavar="TRANSFORM", help=".h5, .tfm or a displacement image")
    parser.add_argument(
        "--moving", type=Path, metavar="IMAGE", help="the moving scan, whose grid only our .h5 files know themselves"
    )
    add_overwrite(parser, "the file that is there")


def _add_set(parser: argparse._ActionsContainer, about: str) -> None:
    parser.add_argument("--set", dest="options", nargs="+", default=[], metavar="KEY=VALUE", help=about)
