"""`regcascade register`: two scans, or many pairs, by a trained model."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from regcascade.cli.commands.arguments import Commands
from regcascade.cli.commands.prepare import recipe_of
from regcascade.inference.initial import INITIALS
from regcascade.inference.instance_optimization import LOSSES, WHATS
from regcascade.inference.model import Trained
from regcascade.inference.outputs import FORMATS, check_folder, claimed_folder, write_registration
from regcascade.inference.pair_list import FilePair, read_pairs
from regcascade.inference.pipeline import PRECISIONS, RegisterOptions, register
from regcascade.inference.scans import ScanFiles
from regcascade.utils.registry import import_user_modules

DESCRIPTION = """\
Register MOVING onto FIXED with a trained model, in native space: scans of any format, size, spacing and orientation, or
DICOM folders. Writes the moved scan on the fixed one's grid, the displacement and its inverse as ITK, ANTs, elastix and
Slicer apply them, the moved labels and landmarks, a Jacobian map, a report and a picture."""
EPILOG = """\
Examples: regcascade register fixed.nii.gz moving.nii.gz --checkpoint best.ckpt --out result; regcascade register
fixed.mha dicom_folder --checkpoint best.ckpt --out result --moving-labels organs.nii.gz --initial moments --refine 50;
regcascade register --pairs pairs.csv --checkpoint best.ckpt --out results."""
BESIDE = ("labels", "points", "mask")


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "register",
        help="register two scans, or many pairs, with a trained model",
        description=DESCRIPTION,
        epilog=EPILOG,
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
    parser.add_argument("--overwrite", action="store_true", help="replace the registration that DIR holds")
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="TABLE",
        help="many pairs in place of FIXED and MOVING: a CSV or JSON with the columns fixed and moving, or a folder of "
        "folders with fixed.* and moving.*; each goes to a folder of DIR, and a run that was stopped goes on",
    )
    _add_files(parser)
    _add_how(parser)
    parser.set_defaults(run=_register)


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what lies beside the scans")
    for role in ("fixed", "moving"):
        group.add_argument(f"--{role}-labels", type=Path, metavar="FILE", help=f"label map of the {role} scan")
        group.add_argument(
            f"--{role}-points", type=Path, metavar="FILE", help="landmarks, a CSV of its voxel coordinates x,y,z"
        )
        group.add_argument(f"--{role}-mask", type=Path, metavar="FILE", help="outside which its image is black")
        group.add_argument(f"--{role}-series", metavar="UID", help="the series, where a DICOM folder holds several")


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how")
    initials = "; ".join(f"{name}: {meaning}" for name, meaning in INITIALS.items())
    group.add_argument("--initial", default="trained", choices=list(INITIALS), help=f"{initials} (default trained)")
    group.add_argument("-r", type=int, default=1, help="how often each network is applied (1)")
    group.add_argument(
        "--repeat", default="stage", choices=["stage", "chain"], help="each in place, or the whole chain"
    )
    group.add_argument("--refine", type=int, default=0, metavar="N", help="steps of optimisation on this pair (0)")
    group.add_argument("--refine-of", default="flow", choices=WHATS, help="what they change (flow)")
    group.add_argument("--refine-loss", default="trained", choices=LOSSES, help="what they lower (the training's)")
    group.add_argument("--labels", default="nearest", choices=["nearest", "linear"], help="how labels are warped")
    group.add_argument("--fill", type=float, metavar="VALUE", help="beyond the moving scan (its smallest intensity)")
    group.add_argument("--format", default="itk", choices=FORMATS, help="learn2reg: that challenge's displacement too")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    group.add_argument("--precision", default="32", choices=list(PRECISIONS), help="of the networks (32)")
    group.add_argument(
        "--jacobian-threshold",
        type=float,
        metavar="PERCENT",
        help="end with status 1 if more of the voxels than this fold (the results are written all the same)",
    )
    group.add_argument("--recipe", help="how images are made, if the checkpoint does not say: see regcascade prepare")
    group.add_argument(
        "--set", dest="options", nargs="+", default=[], metavar="KEY=VALUE", help="options of the recipe"
    )
    group.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")


def _register(options: argparse.Namespace) -> None:
    import_user_modules(options.imports)
    threshold = options.jacobian_threshold
    if threshold is not None and not 0 <= threshold <= 100:
        raise ValueError(f"--jacobian-threshold {threshold}: give a percentage, 0 to 100.")
    how = RegisterOptions(
        options.initial, options.r, options.repeat, options.refine, options.refine_of, options.refine_loss,
        options.labels, options.fill, options.device, options.precision,
    )  # fmt: skip
    console = Console()
    if options.pairs is not None:
        _check_alone(options)
        pairs = read_pairs(options.pairs)
        folded = _register_pairs(pairs, _trained(options), how, options, console)
    else:
        if options.fixed is None or options.moving is None:
            raise ValueError("Give two scans, FIXED and MOVING, or --pairs with a table of them.")
        scans = (_files(options, "fixed"), _files(options, "moving"))
        with claimed_folder(options.out) as mine:
            if not mine:
                raise ValueError(f"--out {options.out}: another process is registering into it. Name another folder.")
            check_folder(options.out, options.overwrite)
            report = write_registration(register(*scans, _trained(options), how), options.out, options.format)
        console.print(_table(report))
        _print_end(report, options.out, console)
        folded = threshold is not None and report["folding_percent"] > threshold
    if folded:
        console.print(f"More than {threshold:g} % of the voxels fold (--jacobian-threshold).", markup=False)
        sys.exit(1)


def _trained(options: argparse.Namespace) -> Trained:
    recipe = None if options.recipe is None else recipe_of(options.recipe, options.options)
    if recipe is None and options.options:
        raise ValueError("--set gives options of a recipe: name it by --recipe.")
    return Trained.of(options.checkpoint, recipe)


def _check_alone(options: argparse.Namespace) -> None:
    of_one = [f"--{role}-{kind}" for role in ("fixed", "moving") for kind in (*BESIDE, "series")]
    given = [name for name in of_one if getattr(options, name[2:].replace("-", "_")) is not None]
    if options.fixed is not None or given:
        first = given[0] if given else "FIXED"
        raise ValueError(f"--pairs names all scans and what lies beside them, in its columns: leave {first} out.")


def _files(options: argparse.Namespace, role: str) -> ScanFiles:
    beside = {kind: getattr(options, f"{role}_{kind}") for kind in (*BESIDE, "series")}
    return ScanFiles(getattr(options, role), **beside)


def _register_pairs(
    pairs: list[FilePair], trained: Trained, how: RegisterOptions, options: argparse.Namespace, console: Console
) -> bool:
    """Register every pair that is not done; one that fails stops no other. Whether any folds beyond the threshold."""
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; name a folder.")
    folded, failed, elsewhere = False, {}, 0
    for number, pair in enumerate(pairs, start=1):
        about = f"{number}/{len(pairs)} {pair.name}"
        try:
            with claimed_folder(options.out / pair.name) as mine:
                if not mine:
                    elsewhere += 1
                    console.print(f"{about}: another process is at it.", markup=False)
                    continue
                if pair.done(options.out) and not options.overwrite:
                    console.print(f"{about}: done before.", markup=False)
                    continue
                check_folder(options.out / pair.name, options.overwrite)
                result = register(pair.fixed, pair.moving, trained, how)
                report = write_registration(result, options.out / pair.name, options.format)
        except (ValueError, RuntimeError, MemoryError) as error:  # the last two from ITK and torch, of one odd pair
            failed[pair.name] = str(error)
            console.print(f"{about}: failed. {error}", markup=False, soft_wrap=True)
            continue
        folded |= options.jacobian_threshold is not None and report["folding_percent"] > options.jacobian_threshold
        change = f"CC {_number(report['cc_initial'])} to {_number(report['cc_after'])}"
        console.print(f"{about}: {change}, folding {report['folding_percent']:.3g} %.", markup=False, soft_wrap=True)
        _print_warnings(report, console)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(pairs)} pairs failed: {', '.join(failed)}. The others are in {options.out}."
        )
    if elsewhere:
        console.print(f"{elsewhere} of {len(pairs)} pairs are another process's: run this again once it has ended.")
    console.print(f"Written: {options.out}.", markup=False)
    return folded


def _table(report: dict[str, Any]) -> Table:
    """What was measured, before and after."""
    table = Table(
        "Measure", box=box.SIMPLE_HEAD, title=f"{report['moving']} onto {report['fixed']}", title_justify="left"
    )
    for column in ("initial", "after"):
        table.add_column(column, justify="right")
    table.add_row("CC", _number(report["cc_initial"]), _number(report["cc_after"]))
    if "dice_after" in report:
        for label in report["dice_after"]:
            name = "Dice" if label == "mean" else f"Dice of {label}"
            table.add_row(name, *(_number(report[when].get(label)) for when in ("dice_initial", "dice_after")))
    if "landmark_distance_mm" in report:
        distance = report["landmark_distance_mm"]
        table.add_row("Landmark distance \\[mm]", _number(distance["initial"], 2), _number(distance["after"], 2))
    table.add_row("Folding \\[%]", "", f"{report['folding_percent']:.4f}")
    table.add_row("Displacement, mean and largest \\[mm]", "", _pair(report["displacement_mm"], "mean", "max"))
    table.add_row(
        "Residual of the inverse, mean and largest \\[mm]",
        "",
        _pair(report["inverse"], "residual_mm_mean", "residual_mm_max", 4),
    )
    table.add_row("Voxels without inverse \\[%]", "", f"{report['inverse']['without_percent']:.2f}")
    table.add_row("Seconds", "", f"{sum(report['seconds'].values()):.1f}")
    return table


def _print_warnings(report: dict[str, Any], console: Console) -> None:
    for warning in report["warnings"]:
        console.print(f"Warning: {warning}", markup=False, soft_wrap=True)


def _print_end(report: dict[str, Any], folder: Path, console: Console) -> None:
    _print_warnings(report, console)
    console.print(f"Written to {folder}: {', '.join(report['files'])}.", markup=False, soft_wrap=True)


def _pair(values: dict[str, Any], first: str, second: str, decimals: int = 2) -> str:
    return f"{_number(values[first], decimals)}, {_number(values[second], decimals)}"


def _number(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
