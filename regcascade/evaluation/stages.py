"""Measures and time after each stage of a registration."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from regcascade.cascades import Cascade
from regcascade.geometry.warp import warp_labels
from regcascade.metrics.correlation import correlation_coefficient
from regcascade.metrics.jacobian import folding_percent
from regcascade.metrics.overlap import mean_dice
from regcascade.registration import Registration
from regcascade.types import Batch
from regcascade.utils.timing import read_clock


@contextmanager
def network_starts(cascade: Cascade, device: torch.device) -> Iterator[list[float]]:
    """Collect, during the block, when each call of a network of the cascade begins, by `read_clock`."""
    starts: list[float] = []
    hooks = [net.register_forward_pre_hook(lambda *_: starts.append(read_clock(device))) for net in cascade.nets]
    try:
        yield starts
    finally:
        for hook in hooks:
            hook.remove()


def stage_names(cascade: Cascade, r: int, repeat: str) -> list[tuple[str, int]]:
    """Name each step of a registration by its stage (from 1, or `affine`) and its repeat (from 1)."""
    steps = [(str(slot + 1), k + 1) for k in range(r) for slot in range(cascade.n)]
    if repeat != "chain":
        steps.sort(key=lambda step: int(step[0]))
    return ([] if cascade.affine is None else [("affine", 1)]) + steps


def stage_rows(
    pair: Batch,
    registration: Registration,
    names: Sequence[tuple[str, int]],
    starts: Sequence[float],
    seconds: float,
    label_names: Mapping[int, str],
    interpolation: str = "nearest",
) -> list[dict[str, Any]]:
    """Measure one pair before registration and after every stage.

    Args:
        pair, registration: a batch of one pair and its registration.
        names: `stage_names` of its stages.
        starts: seconds from the start of the registration to each call of a network.
        seconds: time of the whole registration.
        label_names, interpolation: the labels that count, and how they are warped.

    Returns:
        Rows of `fixed`, `moving`, `step` (0 is before), `stage` (`before`, `affine` or its number), `repeat`,
        `dice_mean`, `cc`, `folding_percent` and `seconds` from the start to the end of the step. These are NaN if a
        user's cascade does not call one network per step.
    """
    stages = registration.stages
    ends = [0.0, *[*starts, seconds][-len(stages) :]]  # a step ends where the next network begins
    if len(starts) != len(registration.deformable_stages):
        ends = [0.0, *[math.nan] * (len(stages) - 1), seconds]
    flows = [torch.zeros_like(registration.flow), *(stage.total for stage in stages)]
    images = [registration.moving, *(stage.moved for stage in stages)]
    rows = []
    steps = zip([("before", 0), *names], images, flows, ends, strict=True)
    for step, ((name, repeat), moved, flow, end) in enumerate(steps):
        measures = dict.fromkeys(("dice_mean", "cc", "folding_percent"), math.nan)
        if flow.isfinite().all():
            if "fixed_labels" in pair and "moving_labels" in pair:
                moved_labels = warp_labels(pair["moving_labels"], flow, interpolation)
                measures["dice_mean"] = mean_dice(moved_labels, pair["fixed_labels"], list(label_names)).item()
            measures["cc"] = correlation_coefficient(moved, pair["fixed"]).item()
            measures["folding_percent"] = folding_percent(flow).item()
        of_step = {"step": step, "stage": name, "repeat": repeat, **measures, "seconds": end}
        rows.append({"fixed": pair["fixed_name"][0], "moving": pair["moving_name"][0], **of_step})
    return rows
