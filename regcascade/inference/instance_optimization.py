"""Refinement on the pair at hand: some steps of optimisation from where the networks ended."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from regcascade.cascades import Cascade
from regcascade.geometry.warp import resize_flow, warp
from regcascade.losses import Objective
from regcascade.registration import Registration, Stage
from regcascade.types import Batch, Flow, level_size, size_of
from regcascade.utils.registry import check_choice, check_options

WHATS = ("flow", "weights")
LOSSES = ("trained", "lncc")
FLOW_RATE = 0.1  # of Adam, in voxels of the half-resolution grid
WEIGHTS_RATE = 1e-4


def refinement_objective(trained_for: Mapping[str, Any], loss: str, what: str) -> Objective:
    """What refinement lowers: the objective of the training, as far as it concerns one pair without labels.

    Args:
        trained_for: the options of the training objective; empty for the default one.
        loss: `trained`, or `lncc` for local correlation in place of its similarity.
        what: `flow` has no stages, so that the smoothness is that of the whole field, at full resolution alone.

    Raises:
        ValueError: for an unknown value, or an option of the training objective that this version does not have.
    """
    check_choice("refine_loss", loss, LOSSES)
    check_choice("refine_of", what, WHATS)
    options = dict(trained_for)
    for of_labels_or_two_directions in ("labels", "landmarks", "inverse_consistency"):
        options.pop(of_labels_or_two_directions, None)
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
    """Lower the objective on one pair by Adam, and keep the best that was seen, the start included.

    Args:
        cascade: the model; it is left as it was.
        batch: one pair.
        registration: what the cascade made of it.
        objective: of `refinement_objective`.
        steps: how many.
        what: `flow` adds a correction to the whole flow, at half resolution so that it stays smooth; `weights`
            trains the network of the last stage.
        r, repeat: as the registration was made.

    Returns:
        The registration, its objective never above that of the one given, and the objective `before` and `after`.
    """
    if what == "weights":
        return _refine_weights(cascade, batch, objective, steps, r, repeat)
    start = registration.flow.detach()
    size = size_of(start)
    correction = torch.zeros(1, 3, *level_size(size, 1), device=start.device, requires_grad=True)

    def attempt() -> Registration:
        return with_flow(registration, start + resize_flow(correction, size, 1))

    best, history = _lowered(attempt, [correction], FLOW_RATE, batch, objective, steps)
    return with_flow(registration, best.flow.detach()), history


def with_flow(registration: Registration, flow: Flow) -> Registration:
    """A registration whose last stage ends at another total flow, at full resolution."""
    stages = registration.stages
    keeps = stages if stages[-1].affine is not None else stages[:-1]
    before = keeps[-1].total if keeps else torch.zeros_like(flow)
    last = Stage(flow=flow - before, totals={0: flow}, moved=warp(registration.moving, flow))
    return Registration(moving=registration.moving, stages=(*keeps, last), supervised=(last,))


def _refine_weights(
    cascade: Cascade, batch: Batch, objective: Objective, steps: int, r: int, repeat: str
) -> tuple[Registration, dict[str, float]]:
    if not len(cascade.nets):
        raise ValueError("--refine-of weights needs a deformable stage, and this model has none: refine the flow.")
    trainable = copy.deepcopy(cascade).requires_grad_(False)
    parameters = list(trainable.nets[-1].requires_grad_(True).parameters())

    def attempt() -> Registration:
        return trainable.register(batch, r, repeat)

    return _lowered(attempt, parameters, WEIGHTS_RATE, batch, objective, steps)


def _lowered(
    attempt: Callable[[], Registration],
    parameters: Sequence[torch.Tensor],
    rate: float,
    batch: Batch,
    objective: Objective,
    steps: int,
) -> tuple[Registration, dict[str, float]]:
    """Steps of Adam; the registration with the lowest objective, and the objective before and after."""
    optimiser = torch.optim.Adam(parameters, lr=rate)
    with torch.enable_grad():
        registration = attempt()
        loss = objective(registration, batch["fixed"])["loss"]
        best, first = without_graph(registration, registration.flow.device), loss.item()
        if not math.isfinite(first):
            raise ValueError("--refine: the objective of this pair is not finite to begin with; leave it out.")
        lowest = first
        for _ in track(range(steps), "Refining", console=Console(stderr=True), transient=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            registration = attempt()
            loss = objective(registration, batch["fixed"])["loss"]
            if loss.item() < lowest:
                best, lowest = without_graph(registration, registration.flow.device), loss.item()
    return best, {"objective_before": first, "objective_after": lowest}


def without_graph(registration: Registration, device: torch.device | str) -> Registration:
    """The same at full resolution, in float32, on a device and free of what gradients would need."""

    def plain(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().float().to(device)

    stages = tuple(
        Stage(plain(stage.flow), {0: plain(stage.total)}, plain(stage.moved), stage.affine)
        for stage in registration.stages
    )
    return Registration(plain(registration.moving), stages, stages[-1:])
