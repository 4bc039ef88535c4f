"""`regcascade profile`: measure time and memory of a training step, and predict how many stages fit."""

import argparse
import math
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from regcascade.cascades.base import RECOMPUTE, parts
from regcascade.cli.console import table
from regcascade.cli.run_folder import composed
from regcascade.data.options import check_size
from regcascade.report.paper.experiments import CONF
from regcascade.report.tables.terminal import model_table
from regcascade.training.build import build_cascade, build_objective, build_optimization
from regcascade.training.execution import check_precision, likely_device, set_execution, split_trainer
from regcascade.training.memory_estimate import Step, free_memory
from regcascade.training.optimizer import MOMENTS
from regcascade.training.profiler import Profile, profile
from regcascade.training.repeats import Repeats
from regcascade.utils.files import parse_yaml
from regcascade.utils.memory import GIB, MIB

SIZE = "size="
PAPERS_SIZE = (128, 128, 128)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.repeats < 1:
        raise ValueError(f"--repeats {arguments.repeats}: 1 or more.")
    if arguments.memory is not None and arguments.memory <= 0:
        raise ValueError(f"--memory {arguments.memory}: GiB, above 0.")
    options = composed(CONF, "train", [given for given in arguments.overrides if not given.startswith(SIZE)])
    sizes = [text.removeprefix(SIZE) for text in arguments.overrides if text.startswith(SIZE)]
    # Prepared data have no option of that name, as their files tell it.
    size = check_size("size", parse_yaml(sizes[-1]) if sizes else options["data"].get("size", PAPERS_SIZE))
    execution, _ = split_trainer(options["trainer"])
    device = likely_device(options["trainer"]["accelerator"])
    precision = str(options["trainer"]["precision"])
    check_precision(precision, device)
    optimization = build_optimization(options["optimizer"])
    batch = options["data"].get("batch_size", 1)
    objective, moments = build_objective(options["loss"]), MOMENTS[optimization.name]
    r = Repeats.of(options["train_r"]).most
    step = Step(
        lambda n: build_cascade(options, size, n), objective, size, batch, precision, execution.recompute, moments, r
    )
    n = len(options["cascade"].get("stages") or [None]) if options["n"] is None else int(options["n"])
    console = Console()
    with torch.device("meta"):  # counting needs no memory
        console.print(model_table(parts(build_cascade(options, size, n))))
    sides = "x".join(map(str, size))
    console.print(f"n={n}, {sides}, batch {batch}, {precision}, recompute={execution.recompute}, r={r}, {device}")
    footprint, here = step.footprint(n), free_memory(device)
    if not arguments.no_run and footprint.total > here:
        raise ValueError(
            f"A training step of n={n} takes about {footprint.total / GIB:.1f} GiB, and {here / GIB:.1f} GiB are free "
            "here: --no-run shows what fits. Smaller: size=, n=, data.batch_size=, trainer.recompute=stage."
        )
    if not arguments.no_run:
        cascade = build_cascade(options, size, n).to(device)
        set_execution(cascade, options["trainer"], size, batch)
        optimizer = optimization.optimizer(parameter for parameter in cascade.parameters() if parameter.requires_grad)
        measured = profile(cascade, step.objective, optimizer, size, batch, precision, arguments.repeats, r)
        console.print(_times(measured))
    memory = table("Memory (estimated)", "", "MiB")
    for name in ("weights", "gradients", "moments", "activations", "total"):
        memory.add_row(name, f"{getattr(footprint, name) / MIB:,.1f}")
    console.print(memory)
    if not options["cascade"].get("stages"):
        free = here if arguments.memory is None else arguments.memory * GIB
        console.print(_fitting(step, n, free))


def _times(measured: Profile) -> Table:
    shown = table("Time", "", "seconds", "of the step")
    for name, seconds in measured.parts.items():
        shown.add_row(name, f"{seconds:.3f}", f"{100 * seconds / measured.step:.0f} %")
    shown.add_section()
    shown.add_row("training step", f"{measured.step:.3f}", "")
    shown.add_row("registration", f"{measured.inference:.3f}", "")
    if measured.peak is not None:
        shown.add_row("peak memory", f"{measured.peak / GIB:.2f} GiB", "")
    return shown


def _fitting(step: Step, n: int, free: float) -> Table:
    title = f"Stages that fit into {free / GIB:.1f} GiB (line through n=1, n=3)"
    shown = table(title, "recompute", "n=1 GiB", "each further MiB", f"n={n} GiB", "largest n")
    for recompute in RECOMPUTE:
        prediction = replace(step, recompute=recompute).prediction()
        first, added, total = prediction.first, prediction.added, prediction.at(n)
        largest = prediction.largest_n(free) if math.isfinite(free) else "any"
        shown.add_row(recompute, f"{first / GIB:.2f}", f"{added / MIB:,.1f}", f"{total / GIB:.2f}", str(largest))
    return shown
