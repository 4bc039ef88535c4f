"""The `regcascade` command."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from regcascade import cascades, nets
from regcascade.data.msd import decathlon_sources
from regcascade.data.prepared import STORED, PreparedCases
from regcascade.data.recipes import RECIPES
from regcascade.data.sources import COLUMNS, Source, find, read_table
from regcascade.entry import clear_errors
from regcascade.evaluation import parts
from regcascade.prepare import FAILED, prepare
from regcascade.registry import import_user_modules
from regcascade.report.compare import compare, print_comparison, write_comparison
from regcascade.report.contact_sheet import write_contact_sheets
from regcascade.report.evaluated import before_registration, find_runs, read_runs
from regcascade.report.figures import file_name, run_pages, set_figures, settings_of
from regcascade.report.style import write_figures
from regcascade.report.tables import model_table, outcome_table
from regcascade.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error of the user's ends it with one line and status 1."""
    options = _parser().parse_args(arguments)
    with clear_errors():
        options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regcascade",
        description="Cascades of networks for deformable registration of 3D medical images. "
        "Train with `python train.py`, evaluate with `python evaluate.py`.",
    )
    parser.add_argument("--version", action="version", version=f"regcascade {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    model = commands.add_parser(
        "model",
        help="print a model's parameters and size",
        description="Print the parameters of a model by part, their float32 size, and the size as the second paper "
        "counts it (weights and Adam's two moments, 12 bytes a parameter).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model.add_argument("network", nargs="?", default="voxelmorph", help=f"one of {', '.join(nets.names())}, or yours")
    model.add_argument("--cascade", default="cr", help=f"one of {', '.join(cascades.names())}, or yours")
    model.add_argument("-n", type=int, default=1, help="deformable stages")
    model.add_argument("--affine", default="none", choices=cascades.AFFINE_CHOICES, help="affine stage")
    model.add_argument(
        "--size",
        type=int,
        nargs=3,
        default=(128, 128, 128),
        metavar=("X", "Y", "Z"),
        help="sides of the volume",
    )
    model.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")
    model.set_defaults(run=_print_model)
    _add_prepare(commands)
    _add_compare(commands)
    _add_figures(commands)
    return parser


def _add_prepare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    prepare = commands.add_parser(
        "prepare",
        help="turn raw scans into ready cases",
        description="Turn raw scans (NIfTI, MetaImage, NRRD, DICOM folders, ...) into a folder of ready cases that "
        "data=prepared trains on. A run that was stopped goes on where it was; a bad scan is left out and listed, and "
        "the exit status is then 1.",
        epilog="Examples: regcascade prepare Task08_HepaticVessel --out prepared/vessel --recipe liver; "
        "regcascade prepare OASIS --images '*/t1.nii.gz' --labels '*/seg.nii.gz' --out prepared/oasis "
        "--recipe brain --set mask=labels size=[160,192,160]; regcascade prepare scans.csv --out prepared/own.",
    )
    prepare.add_argument(
        "source",
        type=Path,
        help="a Decathlon folder (with dataset.json); a folder, with --images; or a table, CSV or JSON, with the "
        f"columns {', '.join(COLUMNS)}, of which image is a must",
    )
    prepare.add_argument("--out", type=Path, required=True, help="the folder to write")
    prepare.add_argument(
        "--recipe", default="generic", help=f"one of {', '.join(RECIPES.names())}, or a YAML file with its options"
    )
    prepare.add_argument(
        "--set",
        dest="options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of the recipe: size=[96,96,96]",
    )
    prepare.add_argument("--images", help="glob of the images below the folder: '*/t1.nii.gz'; DICOM folders too")
    prepare.add_argument("--labels", help="glob of the label maps, its wildcards standing for the same text")
    prepare.add_argument("--masks", help="glob of the masks, likewise")
    prepare.add_argument("--label-names", nargs="*", default=[], metavar="VALUE=NAME", help="1=liver 2=tumour")
    prepare.add_argument("--exclude", type=Path, metavar="FILE", help="names of scans to leave out, one a line")
    prepare.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    prepare.add_argument("--store", default="float32", choices=list(STORED), help="how images are stored")
    prepare.add_argument(
        "--align",
        metavar="SCAN",
        help="align every scan to this one by an affine map, for affine=precomputed: one of their names, or the file "
        "of a prepared case, such as the atlas of another set",
    )
    prepare.set_defaults(run=_prepare)


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="put evaluated runs into one table, with paired tests",
        description="Put evaluated runs into the papers' table (mean and standard deviation of the measures, seconds, "
        "size), with paired tests between any two: t-test, Wilcoxon, Holm's correction, and bootstrap intervals that "
        "resample scans. The runs must be of the same pairs, labels and scans. Prints, and writes Markdown, LaTeX and "
        "CSV.",
        epilog="Examples: regcascade compare evaluations/2026-01-31/*; regcascade compare A B --names VM 'VM, r=2' "
        "--initial --out tables/liver; regcascade compare multirun/2026-01-31/12-00-00 --per-label.",
    )
    compare.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a folder with pairs.csv and summary.json (of an evaluation or a training run), or one that holds such "
        "folders, as a multirun's",
    )
    compare.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the rows; the folders' by default")
    compare.add_argument("--per-label", action="store_true", help="the measures of each label too")
    compare.add_argument("--initial", action="store_true", help="a row of the measures before registration")
    compare.add_argument("--out", type=Path, default=Path("comparison"), help="the folder to write")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    console = Console()
    folders, unfinished = find_runs(options.runs)
    runs = read_runs(folders, options.names)
    if options.initial:
        runs.insert(0, before_registration(runs[0]))
    comparison = compare(runs, options.per_label)
    print_comparison(comparison, console)
    for folder in unfinished:
        console.print(f"Left out, as it has no results (yet): {folder}", markup=False)
    files = write_comparison(comparison, options.out)
    console.print(f"Written: {', '.join(map(str, files))}.", markup=False, soft_wrap=True)


def _add_figures(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    figures = commands.add_parser(
        "figures",
        help="draw evaluated runs: charts of all pairs, pages of the worst, the best or named ones",
        description="Draw evaluated runs for print, 180 mm wide, as PNG: Dice of each label as box plots, Dice against "
        "the initial Dice, the worst and best pairs, Dice against n and r where they vary; and a page for single "
        "pairs, which the run's own checkpoint registers again. The runs must be of the same pairs and labels.",
        epilog="Examples: regcascade figures evaluations/2026-01-31/12-00-00 --out figures; regcascade figures A B "
        "--names VM DR-Net --out figures --worst 0; regcascade figures A --out figures --pair case_3 case_8.",
    )
    figures.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="as in `regcascade compare`")
    figures.add_argument("--out", type=Path, required=True, help="the folder to write")
    figures.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the runs; the folders' by default")
    figures.add_argument(
        "--pair",
        dest="pairs",
        nargs=2,
        action="append",
        default=[],
        metavar=("FIXED", "MOVING"),
        help="scans to draw a page of, in place of the worst and best pairs; can be repeated",
    )
    figures.add_argument("--worst", type=int, default=3, metavar="K", help="pages of the K worst and K best pairs (3)")
    figures.add_argument("--checkpoint", type=Path, metavar="FILE", help="of the run, if it is not where it was")
    figures.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")
    figures.set_defaults(run=_figures)


def _figures(options: argparse.Namespace) -> None:
    import_user_modules(options.imports)
    folders, unfinished = find_runs(options.runs)
    if options.checkpoint is not None and len(folders) > 1:
        raise ValueError(f"--checkpoint is of one run, and these are {len(folders)}. Draw them one by one.")
    if options.worst < 0:
        raise ValueError(f"--worst {options.worst} must be 0 or more.")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; name a folder.")
    tables = {run.name: run.pairs for run in read_runs(folders, options.names)}
    console = Console()
    pages, without = {}, []
    for folder, (name, table) in zip(folders, tables.items(), strict=True):
        if options.pairs or options.worst:
            try:
                named = [(fixed, moving) for fixed, moving in options.pairs]
                pages[name] = run_pages(folder, table, named, options.worst, options.checkpoint)
            except ValueError as error:  # baselines have no checkpoint, and the other runs are to be drawn
                without.append(error)
    if without and not pages:
        raise without[0]
    settings = settings_of(folders, tables, options.checkpoint)
    files = write_figures(set_figures(tables, settings), options.out)
    for name, figures in pages.items():
        files += write_figures(figures, options.out if len(folders) == 1 else options.out / file_name(name))
    for left_out in [f"{folder} has no results (yet)." for folder in unfinished] + [str(error) for error in without]:
        console.print(f"Left out: {left_out}", markup=False)
    console.print(f"Written: {', '.join(map(str, files))}.", markup=False, soft_wrap=True)


def _prepare(options: argparse.Namespace) -> None:
    sources, label_names = _sources(options)
    label_names = {**label_names, **{int(value): name for value, name in map(_key_and_value, options.label_names)}}
    excluded = []
    if options.exclude is not None:
        lines = options.exclude.read_text(encoding="utf-8").splitlines()
        excluded = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    outcomes = prepare(
        sources,
        options.out,
        _recipe(options.recipe, options.options),
        label_names=label_names,
        exclude=excluded,
        workers=options.workers,
        store=options.store,
        align=options.align,
    )
    sheets = write_contact_sheets(PreparedCases(options.out), options.out)
    console = Console()
    console.print(outcome_table(outcomes))
    console.print(f"Prepared: {options.out}. Look over {', '.join(sheet.name for sheet in sheets) or 'nothing'}.")
    failed = [outcome.name for outcome in outcomes if outcome.outcome == FAILED]
    if failed:
        raise SystemExit(1)


def _sources(options: argparse.Namespace) -> tuple[list[Source], dict[int, str]]:
    """The raw scans that the command line names, and what their labels mean where that is known."""
    root: Path = options.source
    if options.images is not None:
        return find(root, options.images, options.labels, options.masks), {}
    if root.is_dir():
        return decathlon_sources(root)
    if not root.is_file():
        raise ValueError(f"There is no {root}. Give a folder of scans, or a table of them.")
    return read_table(root), {}


def _recipe(recipe: str, options: Sequence[str]) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": recipe}
    if recipe.endswith((".yaml", ".yml")):
        content = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{recipe} must hold the options of a recipe, its name among them.")
        spec = content
    return {**spec, **{key: yaml.safe_load(value) for key, value in map(_key_and_value, options)}}


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"{text!r} is no KEY=VALUE.")
    return key, value


def _print_model(options: argparse.Namespace) -> None:
    import_user_modules(options.imports)
    with torch.device("meta"):  # counting needs no memory
        cascade = cascades.build(options.network, options.cascade, options.n, options.affine, options.size)
    Console().print(model_table(parts(cascade)))
