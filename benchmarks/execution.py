"""What the options of `trainer` gain: a training step with each of them against the plain one.

`python benchmarks/execution.py --models voxelmorph --options compile channels_last`; the first compilation, minutes on
a CPU, is not counted.
"""

import argparse
from collections.abc import Callable
from itertools import product

import torch
from comparison import Row, interleaved, parsed, parser, report, timed

from regcascade.cascades import build
from regcascade.losses import Objective
from regcascade.training.execution import Execution, check_compiles

OPTIONS = {
    "recompute": Execution(recompute="stage"),
    "compile": Execution(compile=True),
    "channels_last": Execution(channels_last=True),
    "bf16": Execution(),
    "bf16 channels_last": Execution(channels_last=True),
    "bf16 channels_last compile": Execution(channels_last=True, compile=True),
}


def main() -> None:
    """Time each option beside the plain step, in turn."""
    asked = parser(__doc__, repeats=10)
    asked.add_argument("--models", nargs="+", default=["voxelmorph"], help="base networks")
    asked.add_argument("--options", nargs="+", default=list(OPTIONS), choices=OPTIONS, help="what is compared")
    asked.add_argument("--n", type=int, default=1, help="stages of cr")
    asked.add_argument("--side", type=int, default=64, help="of the cubic images")
    asked.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what runs")
    given = parsed(asked)
    device = torch.device(given.device)
    if any(OPTIONS[name].compile for name in given.options):
        check_compiles(device)
    machine = torch.cuda.get_device_name().replace(" ", "_") if given.device == "cuda" else ""
    for model, name in product(given.models, given.options):
        steps = {
            "option": _step(model, OPTIONS[name], name.startswith("bf16"), given),
            "plain": _step(model, Execution(), False, given),
        }
        row = Row(f"{model}, cr, n={given.n}, {given.side}^3: {name}", interleaved(steps, given.repeats))
        report("execution", [row], given, machine)


def _step(model: str, execution: Execution, bf16: bool, given: argparse.Namespace) -> Callable[[], float]:
    moving, fixed = torch.rand(2, 1, 1, given.side, given.side, given.side, device=given.device)
    cascade, objective = build(model, "cr", given.n).to(given.device), Objective()
    execution.apply(cascade)
    if bf16:
        check_half_precision(cascade, (given.side,) * 3, 1, "bf16-mixed", torch.device(given.device))
    optimizer = torch.optim.Adam(cascade.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(given.device, dtype=torch.bfloat16, enabled=bf16):
            loss = objective(cascade(moving, fixed), fixed)["loss"]
        loss.backward()
        optimizer.step()

    return timed(run, given.device)


if __name__ == "__main__":
    main()
