"""Refine a registration by optimisation on the pair itself, starting from the networks' result."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from regcascade.cascades import Cascade
from regcascade.geometry.warp import resize_flow, warp
from regcascade.losses import Objective
from regcascade.registration import Registration, Stage
from regcascade.types import Batch, level_size, size_of
from regcascade.utils.registry import check_choice, check_options

WHATS = ("flow", "weights")
LOSSES = ("trained", "lncc")
FLOW_RATE = 0.1  # of Adam, in voxels of the half-resolution grid
WEIGHTS_RATE = 1e-4


def refinement_objective(trained_for: Mapping[str, Any], loss: str, what: str) -> Objective:
    """Build the training's objective without its terms of labels, landmarks and the other direction.

    Args:
        trained_for: options of the training objective; empty for the default one.
        loss: `trained`, or `lncc` to replace its similarity by local correlation.
        what: `flow` or `weights`. A flow has no stages: its smoothness is that of the whole field at full resolution.

    Raises:
        ValueError: for an unknown value, or an unknown option of the training objective.
    """
    check_choice("refine_loss", loss, LOSSES)
    check_choice("refine_of", what, WHATS)
    left_out = ("labels", "landmarks", "inverse_consistency")
    options = {name: value for name, value in trained_for.items() if name not in left_out}
    if loss == "lncc":
        options["similarity"] = {"name": "lncc", "kernel_size": 9}
    if what == "flow":
        options |= {"alpha": 0.0, "beta": 0.0, "smoothness_of": "fields"}
    check_options("--refine: the objective of this model's training", options, Objective)
    return Objective(**options)


def refine(
    cascade: Cascade,
    batch: Batch,
    registration: Registration,
    objective: Objective,
    steps: int,
    what: str = "flow",
    r: int = 1,
    repeat: str = "stage",
) -> tuple[Registration, dict[str, float]]:
    """Minimise the objective on one pair by Adam, and keep the best step, the start included.

    Args:
        cascade: the model; it is not changed.
        batch, registration: one pair and its registration by the cascade, with `r` and `repeat`.
        objective: by `refinement_objective`.
        steps: number of steps.
        what: `flow` adds a correction to the whole flow, at half resolution; `weights` trains the last network.

    Returns:
        The refined registration, and the objective before and after, which never rises.

    Raises:
        ValueError: if the model has no stage to train, or the objective is not finite at the start.
    """
    start, size = registration.flow.detach(), size_of(registration.flow)
    parameters: list[torch.Tensor]
    if what == "weights":
        if not len(cascade.nets):
            raise ValueError("--refine-of weights needs a deformable stage, and this model has none: refine the flow.")
        trainable = copy.deepcopy(cascade).requires_grad_(False)
        parameters, rate = list(trainable.nets[-1].requires_grad_(True).parameters()), WEIGHTS_RATE
    else:
        correction = torch.zeros(1, 3, *level_size(size, 1), device=start.device, requires_grad=True)
        parameters, rate = [correction], FLOW_RATE
        stages = registration.stages
        kept = stages if stages[-1].affine is not None else stages[:-1]
        before = kept[-1].total if kept else torch.zeros_like(start)

    def attempt() -> Registration:
        if what == "weights":
            return trainable.register(batch, r, repeat)
        flow = start + resize_flow(correction, size, 1)
        last = Stage(flow=flow - before, totals={0: flow}, moved=warp(registration.moving, flow))
        return Registration(moving=registration.moving, stages=(*kept, last), supervised=(last,))

    optimiser, first, lowest = torch.optim.Adam(parameters, lr=rate), math.inf, math.inf
    with torch.enable_grad():
        for step in track(range(steps + 1), "Refining", console=Console(stderr=True), transient=True):
            candidate = attempt()
            loss = objective(candidate, batch["fixed"])["loss"]
            if loss.item() < lowest:
                best, lowest = without_graph(candidate, candidate.flow.device), loss.item()
            if step == 0:
                first = loss.item()
                if not math.isfinite(first):
                    raise ValueError("--refine: the objective of this pair is not finite to begin with; leave it out.")
            if step < steps:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return best, {"objective_before": first, "objective_after": lowest}


def without_graph(registration: Registration, device: torch.device | str) -> Registration:
    """Copy a registration to a device at full resolution, in float32, without its autograd graph."""

    def plain(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().float().to(device)

    stages = tuple(
        Stage(plain(each.flow), {0: plain(each.total)}, plain(each.moved), each.affine) for each in registration.stages
    )
    return Registration(plain(registration.moving), stages, stages[-1:])
