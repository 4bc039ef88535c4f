"""Parsers of `prepare`, `register`, `apply` and `invert`, which read and write scans."""

import argparse
import os

from regcascade.cli.parsers import choices
from regcascade.cli.parsers.shared import Commands, add_imports, add_label_names, add_overwrite, add_path, add_set


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
        description="Turn raw scans (NIfTI, MetaImage, NRRD, DICOM folders, ...) into a folder of ready cases for "
        "data=prepared. A stopped run is continued by the same command. A bad scan is left out and listed, and the "
        "exit status is then 1.",
        epilog="Examples: regcascade prepare Task08_HepaticVessel --out prepared/vessel --recipe liver; "
        "regcascade prepare OASIS --images '*/t1.nii.gz' --labels '*/seg.nii.gz' --out prepared/oasis "
        "--recipe brain --set mask=labels size=[160,192,160]; regcascade prepare scans.csv --out prepared/own.",
    )
    columns = ", ".join(choices.SCAN_COLUMNS)
    about = (
        "Decathlon folder (with dataset.json), folder with --images, JSON of RCN's HDF5 files, or table (CSV, JSON) "
    )
    about += f"with the columns {columns}; image is required"
    add_path(parser, "source", about, "SOURCE")
    add_path(parser, "--out", "the folder to write", "DIR", required=True)
    about = "take the options that are not given from the list of a public set: a name (sliver, lpba, ...) or a file"
    add_path(parser, "--list", about, "NAME")
    about = f"one of {', '.join(choices.RECIPES)}, or a YAML file with its options (generic)"
    parser.add_argument("--recipe", help=about)
    add_set(parser, "options of the recipe: size=[96,96,96]")
    parser.add_argument("--images", help="glob of the images below the folder: '*/t1.nii.gz'; DICOM folders too")
    parser.add_argument("--labels", help="glob of the label maps, its wildcards standing for the same text")
    parser.add_argument("--masks", help="glob of the masks, likewise")
    parser.add_argument("--points", help="glob of the landmarks, likewise: CSVs of voxel coordinates, or Slicer's")
    add_label_names(parser)
    add_path(parser, "--exclude", "names of scans to leave out, one per line")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of parallel processes")
    parser.add_argument("--store", default="float32", choices=choices.STORED, help="how images are stored")
    about = "align all scans to this one by an affine map, for affine=precomputed: its name, or the file of a case"
    parser.add_argument("--align", metavar="SCAN", help=about)
    group = parser.add_argument_group("for RCN's HDF5 files")
    group.add_argument("--subset", nargs="+", default=[], metavar="NAME", help="the subsets of the JSON to prepare")
    group.add_argument("--scans", metavar="PATTERN", help="only scans whose names in the JSON match: 'youyi/*'")
    group.add_argument("--adjacent", action="store_true", help="every two consecutive scans are a group, as in LSPIG")
    group.add_argument("--spacing", nargs=3, type=float, metavar="MM", help="mm per voxel along each axis (1 1 1)")
    group.add_argument("--axes", metavar="RAS", help="directions of the axes (RAS)")


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
    add_path(parser, "fixed", "the fixed scan", "FIXED", nargs="?")
    add_path(parser, "moving", "the scan to deform", "MOVING", nargs="?")
    add_path(parser, "--checkpoint", "model, or the name of one that comes with regcascade: hippocampus", required=True)
    add_path(parser, "--out", "the folder to write", "DIR", required=True)
    add_overwrite(parser, "the registration that DIR holds")
    about = "many pairs in place of FIXED and MOVING: CSV or JSON with the columns fixed and moving, or folder of "
    about += "folders with fixed.* and moving.*; each is written to a folder of DIR; a stopped run is continued"
    add_path(parser, "--pairs", about, "TABLE")
    group = parser.add_argument_group("what lies beside the scans")
    for role in ("fixed", "moving"):
        add_path(group, f"--{role}-labels", f"label map of the {role} scan")
        add_path(group, f"--{role}-points", "its landmarks, a CSV of voxel coordinates x,y,z or a file of Slicer's")
        add_path(group, f"--{role}-mask", f"mask of the {role} scan, outside which its image is black")
        group.add_argument(f"--{role}-series", metavar="UID", help="series of a DICOM folder that holds several")
    _add_how(parser.add_argument_group("how"))


def _add_how(group: argparse._ArgumentGroup) -> None:
    about = "; ".join(f"{name}: {meaning}" for name, meaning in choices.INITIALS.items()) + " (default trained)"
    group.add_argument("--initial", default="trained", choices=list(choices.INITIALS), help=about)
    group.add_argument("-r", type=int, default=1, help="how often each network is applied (1)")
    about = "repeat each network in place, or the whole chain (stage)"
    group.add_argument("--repeat", default="stage", choices=["stage", "chain"], help=about)
    group.add_argument("--refine", type=int, default=0, metavar="N", help="optimisation steps on this pair (0)")
    group.add_argument("--refine-of", default="flow", choices=choices.REFINE_OF, help="what they change (flow)")
    about = "the loss they minimise (trained, that of the training)"
    group.add_argument("--refine-loss", default="trained", choices=choices.REFINE_LOSSES, help=about)
    group.add_argument("--labels", default="nearest", choices=["nearest", "linear"], help="how labels are warped")
    about = "intensity beyond the moving scan (its minimum)"
    group.add_argument("--fill", type=float, metavar="VALUE", help=about)
    about = "learn2reg: that challenge's displacement too"
    group.add_argument("--format", default="itk", choices=choices.FORMATS, help=about)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    group.add_argument("--precision", default="32", choices=choices.PRECISIONS, help="of the networks (32)")
    about = "exit with status 1 if more of the voxels fold (the results are written all the same)"
    group.add_argument("--jacobian-threshold", type=float, metavar="PERCENT", help=about)
    group.add_argument("--recipe", help="recipe of the images, if the checkpoint has none: see regcascade prepare")
    add_set(group, "options of the recipe")
    add_imports(group)


def _add_apply(commands: Commands) -> None:
    parser = commands.add_parser(
        "apply",
        help="take an image, labels or points through a saved transform",
        description="Take an image, a label map or points through a transform that `regcascade register`, SimpleITK or "
        "ANTs wrote. By default what belongs to the moving scan is brought onto the fixed one.",
        epilog="Examples: regcascade apply transform.h5 t2.nii.gz --out moved.nii.gz; regcascade apply transform.h5 "
        "organs.nii.gz --labels --out moved.nii.gz; regcascade apply transform.h5 landmarks.csv --out moved.csv; "
        "regcascade apply transform.h5 atlas.nii.gz --labels --direction to-moving --out back.nii.gz",
    )
    _add_transform(parser)
    add_path(parser, "file", "an image, a DICOM folder, or points: a CSV with the columns x, y, z, or Slicer's file")
    add_path(parser, "--out", "the file to write", required=True)
    parser.add_argument("--labels", action="store_true", help="FILE is a label map, whose values must not be mixed")
    about = "of labels: the nearest voxel's (default), or the label with the largest trilinear share"
    parser.add_argument("--interpolation", choices=("nearest", "linear"), help=about)
    add_path(parser, "--like", "image whose grid the result takes, in its own world", "IMAGE")
    parser.add_argument("--fill", type=float, metavar="V", help="intensity beyond the image (its minimum)")
    about = "unit of the points: voxels from 0 (default), mm in nibabel's frame (ras) or in ITK's and Slicer's (lps)"
    parser.add_argument("--points-unit", choices=choices.UNITS, help=about)
    about = "bring FILE from the moving to the fixed scan (default), or back, images by the inverse"
    parser.add_argument("--direction", choices=("to-fixed", "to-moving"), default="to-fixed", help=about)


def _add_invert(commands: Commands) -> None:
    parser = commands.add_parser(
        "invert",
        help="invert a saved transform",
        description="Invert a transform that `regcascade register`, SimpleITK or ANTs wrote: the result brings the "
        "fixed scan onto the moving one, on the moving scan's grid. Prints the residual of going there and back, and "
        "how much of the moving scan has no counterpart.",
        epilog="Example: regcascade invert transform.h5 --out inverse.h5",
    )
    _add_transform(parser)
    add_path(parser, "--out", ".h5, .tfm, or .nii.gz, .mha, .nrrd (a displacement)", required=True)


def _add_transform(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "transform", ".h5, .tfm or a displacement image", "TRANSFORM")
    add_path(parser, "--moving", "the moving scan, whose grid only our .h5 files hold", "IMAGE")
    add_overwrite(parser, "the file that is there")
