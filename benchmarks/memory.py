"""Activation memory of a training step against n, with and without recomputation per stage.

Activations are the peak of all tensors less weights, gradients and moments. They are counted in a step that is gone
through with tensors without data, which is exact but for the workspace of convolutions and takes no memory, whatever
the size; on a GPU, `--device cuda` measures the same steps. The share is what a stage adds, by the largest n, over what
one stage takes; `limit` bounds it with recomputation: `python benchmarks/memory.py --models voxelmorph`.
"""

import argparse
from itertools import product

import torch
from comparison import RESULTS, write
from rich.console import Console
from rich.table import Table

from regcascade.cascades import CASCADES, build
from regcascade.losses import Objective
from regcascade.training.memory_estimate import Step

LIMIT = 0.1
MIB = 2**20
ALL_SCALES = {"alpha": 0.5, "beta": 0.25}


def main() -> None:
    """Count every combination."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    asked.add_argument("--models", nargs="+", default=["voxelmorph", "vtn", "drnet", "pyramid"], help="base networks")
    asked.add_argument("--cascades", nargs="+", default=["cr", "mcr"], help="strategies")
    asked.add_argument("--n", type=int, nargs="+", default=[1, 2, 3, 5, 10], help="numbers of stages, 1 among them")
    asked.add_argument("--side", type=int, default=128, help="of the cubic images")
    asked.add_argument("--precision", default="32-true", help="as Lightning names it")
    asked.add_argument("--device", choices=["none", "cuda"], default="none", help="cuda: measured, not counted")
    asked.add_argument("--out", type=type(RESULTS), default=RESULTS, help="folder of the result file")
    given = asked.parse_args()
    numbers = sorted({1, *given.n})
    table = Table("", "recompute", *(f"n={n}" for n in numbers), "a stage", "limit", title=f"MiB at {given.side}^3")
    machine = torch.cuda.get_device_name().replace(" ", "_") if given.device == "cuda" else "counted"
    for model, strategy, recompute in product(given.models, given.cascades, ("none", "stage")):
        step = _step(model, strategy, given, recompute)
        taken = [_measured(step, n) if given.device == "cuda" else step.footprint(n).activations for n in numbers]
        share = (taken[-1] - taken[0]) / (numbers[-1] - 1) / taken[0] if len(numbers) > 1 else 0.0
        limit = LIMIT if (model, recompute) == ("voxelmorph", "stage") else None
        values = [f"{value / MIB:,.0f}" for value in taken]
        table.add_row(f"{model}, {strategy}", recompute, *values, f"{share:.3f}", str(limit or ""))
        name = f"{model}, {strategy}, {given.side}^3, {given.precision}, recompute={recompute}"
        row = {"name": name, "n": numbers, "bytes": taken, "share": share, "limit": limit}
        write("memory", [row], given.out, machine)
    Console().print(table)


def _step(model: str, strategy: str, given: argparse.Namespace, recompute: str) -> Step:
    levels = ALL_SCALES if 2 in CASCADES.get(strategy).levels else {}
    size = (given.side, given.side, given.side)
    return Step(lambda n: build(model, strategy, n), Objective(**levels), size, 1, given.precision, recompute)


def _measured(step: Step, n: int) -> int:
    """The peak on a GPU of a second step, less weights, gradients and moments."""
    cascade = step.build(n).cuda().train()
    cascade.recompute = step.recompute
    step.run(cascade)  # from now on the gradients are there, and those of the next step are added to them
    torch.cuda.reset_peak_memory_stats()
    standing = torch.cuda.memory_allocated()
    step.run(cascade)
    peak = torch.cuda.max_memory_allocated() - standing
    del cascade
    torch.cuda.empty_cache()
    return peak


if __name__ == "__main__":
    main()
