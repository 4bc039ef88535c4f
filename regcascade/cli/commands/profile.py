"""`regcascade profile`: time and memory of a training step, and how many stages fit."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from regcascade.cascades import Cascade, build
from regcascade.cascades.base import RECOMPUTE, parts
from regcascade.cli.commands.arguments import Commands
from regcascade.cli.run_folder import composed
from regcascade.data.options import check_size
from regcascade.losses import Objective
from regcascade.report.paper.experiments import CONF
from regcascade.report.tables.terminal import model_table
from regcascade.training.execution import (
    check_compiles,
    check_half_precision,
    check_precision,
    likely_device,
    split_trainer,
)
from regcascade.training.lr_finder import AUTO
from regcascade.training.memory_estimate import Footprint, Step, free_memory
from regcascade.training.optimizer import MOMENTS, Optimization
from regcascade.training.profiler import Profile, profile
from regcascade.types import Size
from regcascade.utils.memory import GIB
from regcascade.utils.registry import import_user_modules

MIB = 2**20
SIZE = "size="
PAPERS_SIZE = (128, 128, 128)


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "profile",
        help="time and memory of a training step, and how many stages fit",
        description="Time a registration and a training step on random images, say where the time of a step goes and "
        "what memory it takes, and predict how many stages fit. Memory is estimated by going through steps of one and "
        "of three stages with tensors that have no data, so nothing of that size is allocated for it: weights, "
        "gradients, the optimiser's moments and activations, without the workspace of convolutions (add a tenth).",
        epilog="Examples: regcascade profile model=drnet cascade=mcr n=3 size=[128,128,128]; regcascade profile "
        "model=vtn n=10 trainer.recompute=stage trainer.precision=bf16-mixed --memory 12 --no-run.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="as train.py takes them; size=[X,Y,Z] is the size of the images, data.size by default, and 128 a side "
        "for data sets that have no such option. Training data is not read.",
    )
    parser.add_argument("--repeats", type=int, default=3, help="of each timing; the median counts (default 3)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="to fit stages into; by default what is free here")
    parser.add_argument("--no-run", action="store_true", help="estimate the memory only")
    parser.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")
    parser.set_defaults(run=_profile)


def _profile(arguments: argparse.Namespace) -> None:
    if arguments.repeats < 1:
        raise ValueError(f"--repeats {arguments.repeats}: 1 or more.")
    if arguments.memory is not None and arguments.memory <= 0:
        raise ValueError(f"--memory {arguments.memory}: GiB, above 0.")
    import_user_modules(arguments.imports)
    options = composed(CONF, "train", [given for given in arguments.overrides if not given.startswith(SIZE)])
    size = _size(arguments.overrides, options)
    execution, _ = split_trainer(options["trainer"])
    device = likely_device(options["trainer"]["accelerator"])
    precision = str(options["trainer"]["precision"])
    check_precision(precision, device)
    rated = {key: value for key, value in options["optimizer"].items() if value != AUTO}  # the rate takes no time
    optimization = Optimization(**rated)
    batch = options["data"].get("batch_size", 1)
    step = Step(
        lambda n: _built(options, n, size),
        Objective(**options["loss"]),
        size,
        batch,
        precision,
        execution.recompute,
        MOMENTS[optimization.name],
    )
    n = _stages(options)
    console = Console()
    with torch.device("meta"):  # counting needs no memory
        console.print(model_table(parts(_built(options, n, size))))
    sides = "x".join(map(str, size))
    console.print(f"n={n}, {sides}, batch {batch}, {precision}, recompute={execution.recompute}, {device}")
    if not arguments.no_run:
        if execution.compile:
            check_compiles(device)
        cascade = _built(options, n, size).to(device)
        execution.apply(cascade)
        check_half_precision(cascade, size, batch, precision, device)
        optimizer = optimization.optimizer(parameter for parameter in cascade.parameters() if parameter.requires_grad)
        console.print(_times(profile(cascade, step.objective, optimizer, size, batch, precision, arguments.repeats)))
    console.print(_memory(step.footprint(n)))
    if not options["cascade"].get("stages"):
        free = free_memory(device) if arguments.memory is None else arguments.memory * GIB
        console.print(_fitting(step, n, free))


def _size(overrides: Sequence[str], options: dict[str, Any]) -> Size:
    """What size= says, or data.size; of prepared data, whose files say it, that of the papers."""
    given = [text.removeprefix(SIZE) for text in overrides if text.startswith(SIZE)]
    return check_size("size", yaml.safe_load(given[-1]) if given else options["data"].get("size", PAPERS_SIZE))


def _stages(options: dict[str, Any]) -> int:
    n = options["n"]
    return int(n) if n is not None else len(options["cascade"].get("stages") or [None])


def _built(options: dict[str, Any], n: int, size: Size) -> Cascade:
    affine = {key: value for key, value in options["affine"].items() if key != "checkpoint"}
    return build(options["model"], options["cascade"], n, affine, size)


def _times(measured: Profile) -> Table:
    table = _table("Time", ["", "seconds", "of the step"])
    for name, seconds in measured.parts.items():
        table.add_row(name, f"{seconds:.3f}", f"{100 * seconds / measured.step:.0f} %")
    table.add_section()
    table.add_row("training step", f"{measured.step:.3f}", "")
    table.add_row("registration", f"{measured.inference:.3f}", "")
    if measured.peak is not None:
        table.add_row("peak memory", f"{measured.peak / GIB:.2f} GiB", "")
    return table


def _memory(footprint: Footprint) -> Table:
    table = _table("Memory (estimated)", ["", "MiB"])
    for name in ("weights", "gradients", "moments", "activations", "total"):
        table.add_row(name, f"{getattr(footprint, name) / MIB:,.1f}")
    return table


def _fitting(step: Step, n: int, free: float) -> Table:
    title = f"Stages that fit into {free / GIB:.1f} GiB (line through n=1, n=3)"
    table = _table(title, ["recompute", "n=1 GiB", "each further MiB", f"n={n} GiB", "largest n"])
    for recompute in RECOMPUTE:
        prediction = replace(step, recompute=recompute).prediction()
        largest = prediction.largest_n(free) if math.isfinite(free) else "any"
        table.add_row(
            recompute,
            f"{prediction.first.total / GIB:.2f}",
            f"{prediction.added.total / MIB:,.1f}",
            f"{prediction.at(n).total / GIB:.2f}",
            str(largest),
        )
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    return table
