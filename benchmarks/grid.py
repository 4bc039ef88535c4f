"""Training steps and registrations of every network, cascade and n, against MONAI's VoxelMorph with its own Warp.

All are plain PyTorch loops on the same random images with the same loss, 1 - CC + 0.5 smoothness of each stage's flow;
only mcr's coarser scales have a share of their own in it. A row that would not fit into memory is left out:
`python benchmarks/grid.py --models voxelmorph vtn --n 1 3`, on a GPU with `--device cuda`.
"""

import argparse
from collections.abc import Callable
from itertools import product

import torch
from comparison import Row, interleaved, parsed, parser, report, timed
from monai.networks.nets import VoxelMorph
from torch import Tensor, nn

from regcascade.cascades import CASCADES, build
from regcascade.losses import Objective, correlation_coefficient, smoothness
from regcascade.training.memory_estimate import Step, free_memory
from regcascade.utils.memory import GIB

MODELS = ("voxelmorph", "vtn", "drnet")
SIDES = {"cpu": 64, "cuda": 128}
ALL_SCALES = {"alpha": 0.5, "beta": 0.25}


def main() -> None:
    """Time every combination beside MONAI's network."""
    asked = parser(__doc__, repeats=5)
    asked.add_argument("--models", nargs="+", default=MODELS, help="base networks")
    asked.add_argument("--cascades", nargs="+", default=("cr", "mcr"), help="strategies")
    asked.add_argument("--n", type=int, nargs="+", default=(1, 3, 5, 10), help="numbers of stages")
    asked.add_argument("--side", type=int, help="of the cubic images; 64 on a CPU and 128 on a GPU where not given")
    asked.add_argument("--device", choices=SIDES, default="cpu", help="what runs")
    asked.add_argument("--recompute", choices=("none", "stage"), default="none", help="of the cascades")
    given = parsed(asked)
    side = given.side or SIDES[given.device]
    machine = torch.cuda.get_device_name().replace(" ", "_") if given.device == "cuda" else ""
    for model, strategy, n in product(given.models, given.cascades, given.n):
        name = f"{model}, {strategy}, n={n}, {side}^3, batch 1"
        if shortage := _shortage(given, model, strategy, n, side):
            print(f"{name}: left out, {shortage}")
            continue
        seconds = _seconds(given, model, strategy, n, side)
        report("grid", [Row(f"{task}: {name}", of_task) for task, of_task in seconds.items()], given, machine)


def _objective(strategy: str) -> Objective:
    levels = CASCADES.get(strategy).levels
    return Objective(**(ALL_SCALES if 2 in levels else {}))


def _shortage(given: argparse.Namespace, model: str, strategy: str, n: int, side: int) -> str:
    size = (side, side, side)
    step = Step(lambda n: build(model, strategy, n), _objective(strategy), size, recompute=given.recompute)
    needed, free = step.prediction().at(n), free_memory(torch.device(given.device))
    return "" if 1.2 * needed < free else f"it takes {needed / GIB:.1f} GiB and {free / GIB:.1f} GiB are free"


def _seconds(given: argparse.Namespace, model: str, strategy: str, n: int, side: int) -> dict[str, dict[str, float]]:
    """Median seconds of ours and MONAI's, of a training step and of a registration."""
    device = torch.device(given.device)
    moving, fixed = torch.rand(2, 1, 1, side, side, side, device=device)
    cascade, theirs = build(model, strategy, n).to(device), VoxelMorph(integration_steps=0).to(device)
    cascade.recompute = given.recompute
    objective = _objective(strategy)

    def our_loss() -> Tensor:
        return objective(cascade(moving, fixed), fixed)["loss"]

    def their_loss() -> Tensor:
        moved, flow = theirs(moving, fixed)
        return (1 - correlation_coefficient(moved, fixed)).mean() + 0.5 * smoothness(flow)

    steps = {"regcascade": _step(cascade, our_loss, device), "MONAI": _step(theirs, their_loss, device)}
    passes = {
        "regcascade": _registration(cascade, moving, fixed, device),
        "MONAI": _registration(theirs, moving, fixed, device),
    }
    return {"training": interleaved(steps, given.repeats), "inference": interleaved(passes, given.repeats)}


def _step(network: nn.Module, loss: Callable[[], Tensor], device: torch.device) -> Callable[[], float]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return timed(run, device)


def _registration(network: nn.Module, moving: Tensor, fixed: Tensor, device: torch.device) -> Callable[[], float]:
    def run() -> None:
        with torch.inference_mode():
            network(moving, fixed)

    return timed(run, device)


if __name__ == "__main__":
    main()
