"""`regcascade register`: register two scans, or many pairs, with a trained model."""

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regcascade.cli.commands.prepare import recipe_of
from regcascade.cli.console import say, table
from regcascade.inference.model import Trained
from regcascade.inference.outputs import check_folder, claimed_folder, write_registration
from regcascade.inference.pair_list import FilePair, read_pairs
from regcascade.inference.pipeline import RegisterOptions, register
from regcascade.inference.scans import ScanFiles

BESIDE = ("labels", "points", "mask", "series")  # options of the fixed and of the moving scan


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    threshold = options.jacobian_threshold
    if threshold is not None and not 0 <= threshold <= 100:
        raise ValueError(f"--jacobian-threshold {threshold}: give a percentage, 0 to 100.")
    how = RegisterOptions(
        options.initial, options.r, options.repeat, options.refine, options.refine_of, options.refine_loss,
        options.labels, options.fill, options.device, options.precision,
    )  # fmt: skip
    if options.pairs is not None:
        beside = [f"--{role}-{kind}" for role in ("fixed", "moving") for kind in BESIDE]
        given = [name for name in beside if getattr(options, name[2:].replace("-", "_")) is not None]
        if options.fixed is not None or given:
            first = given[0] if given else "FIXED"
            raise ValueError(f"--pairs names all scans and what lies beside them, in its columns: leave {first} out.")
        pairs = read_pairs(options.pairs)
        folded = _register_pairs(pairs, _trained(options), how, options)
    else:
        if options.fixed is None or options.moving is None:
            raise ValueError("Give two scans, FIXED and MOVING, or --pairs with a table of them.")
        fixed, moving = (
            ScanFiles(getattr(options, role), **{kind: getattr(options, f"{role}_{kind}") for kind in BESIDE})
            for role in ("fixed", "moving")
        )
        with claimed_folder(options.out) as mine:
            if not mine:
                raise ValueError(f"--out {options.out}: another process is registering into it. Name another folder.")
            check_folder(options.out, options.overwrite)
            report = write_registration(register(fixed, moving, _trained(options), how), options.out, options.format)
        Console().print(_table(report))
        say(*_warnings(report), f"Written to {options.out}: {', '.join(report['files'])}.")
        folded = threshold is not None and report["folding_percent"] > threshold
    if folded:
        say(f"More than {threshold:g} % of the voxels fold (--jacobian-threshold).")
        sys.exit(1)


def _trained(options: argparse.Namespace) -> Trained:
    recipe = None if options.recipe is None else recipe_of(options.recipe, options.options)
    if recipe is None and options.options:
        raise ValueError("--set gives options of a recipe: name it by --recipe.")
    return Trained.of(options.checkpoint, recipe)


def _register_pairs(pairs: list[FilePair], trained: Trained, how: RegisterOptions, options: argparse.Namespace) -> bool:
    """Register the pairs that are not done, also after one fails; return whether any folds too much."""
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; name a folder.")
    folded, failed, elsewhere = False, {}, 0
    for number, pair in enumerate(pairs, start=1):
        about = f"{number}/{len(pairs)} {pair.name}"
        try:
            with claimed_folder(options.out / pair.name) as mine:
                if not mine:
                    elsewhere += 1
                    say(f"{about}: another process is at it.")
                    continue
                if pair.done(options.out) and not options.overwrite:
                    say(f"{about}: done before.")
                    continue
                check_folder(options.out / pair.name, options.overwrite)
                result = register(pair.fixed, pair.moving, trained, how)
                report = write_registration(result, options.out / pair.name, options.format)
        except (ValueError, RuntimeError, MemoryError) as error:  # the last two by ITK and torch
            failed[pair.name] = str(error)
            say(f"{about}: failed. {error}")
            continue
        folded |= options.jacobian_threshold is not None and report["folding_percent"] > options.jacobian_threshold
        change = f"CC {_number(report['cc_initial'])} to {_number(report['cc_after'])}"
        say(f"{about}: {change}, folding {report['folding_percent']:.3g} %.", *_warnings(report))
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(pairs)} pairs failed: {', '.join(failed)}. The others are in {options.out}."
        )
    if elsewhere:
        say(f"{elsewhere} of {len(pairs)} pairs are another process's: run this again once it has ended.")
    say(f"Written: {options.out}.")
    return folded


def _table(report: dict[str, Any]) -> Table:
    """Make a table of the measures before and after."""
    shown = table(escape(f"{report['moving']} onto {report['fixed']}"), "Measure", "initial", "after")
    shown.add_row("CC", _number(report["cc_initial"]), _number(report["cc_after"]))
    for label in report.get("dice_after", {}):
        name = "Dice" if label == "mean" else f"Dice of {label}"
        shown.add_row(name, *(_number(report[when].get(label)) for when in ("dice_initial", "dice_after")))
    if distance := report.get("landmark_distance_mm"):
        shown.add_row("Landmark distance \\[mm]", _number(distance["initial"], 2), _number(distance["after"], 2))
    shown.add_row("Folding \\[%]", "", f"{report['folding_percent']:.4f}")
    displacement = ", ".join(_number(report["displacement_mm"][which], 2) for which in ("mean", "max"))
    shown.add_row("Displacement, mean and largest \\[mm]", "", displacement)
    inverse = report["inverse"]
    residual = f"{_number(inverse['residual_mm_mean'], 4)}, {_number(inverse['residual_mm_max'], 4)}"
    shown.add_row("Residual of the inverse, mean and largest \\[mm]", "", residual)
    shown.add_row("Voxels without inverse \\[%]", "", f"{inverse['without_percent']:.2f}")
    shown.add_row("Seconds", "", f"{sum(report['seconds'].values()):.1f}")
    return shown


def _warnings(report: dict[str, Any]) -> list[str]:
    return [f"Warning: {warning}" for warning in report["warnings"]]


def _number(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
