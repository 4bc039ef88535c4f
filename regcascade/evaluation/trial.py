"""One registration of a pair: its result, its time, and whether it failed."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from regcascade.cascades import Cascade
from regcascade.evaluation.baselines import Method, RegistrationFailed
from regcascade.evaluation.stages import network_starts
from regcascade.registration import Registration, Stage
from regcascade.types import Batch, Flow, size_of
from regcascade.utils.timing import read_clock

MIRRORED = 50.0  # percent of folded voxels beyond which a map has turned the scan inside out


class Attempt(NamedTuple):
    """A registration of one pair.

    Attributes:
        registration: the result; of a pair that has none the flow and the moved image are NaN.
        seconds: its time, NaN without a result.
        starts: seconds after which each network began, where they were to be noted.
        failure: why there is no result; empty where there is one.
    """

    registration: Registration
    seconds: float
    starts: list[float]
    failure: str = ""


def attempt(method: Cascade | Method, batch: Batch, r: int, repeat: str, stages: bool) -> Attempt:
    """Register a batch of one pair and take the time.

    Args:
        method: a cascade on the device of the batch, or another method.
        batch: the pair.
        r, repeat: see `Cascade.forward`.
        stages: whether to note when each network begins.
    """
    device = batch["moving"].device
    watched: AbstractContextManager[list[float]]
    watched = network_starts(with_stages(method), device) if stages else nullcontext([])
    with watched as starts:
        start = read_clock(device)
        try:
            registration = method.register(batch, r, repeat)
        except RegistrationFailed as failure:
            return Attempt(_no_result(batch), math.nan, [], str(failure))
        seconds = read_clock(device) - start
    return Attempt(registration, seconds, [each - start for each in starts])


def flaw(flow: Flow, measures: Mapping[str, float]) -> str:
    """Why a result is a failure all the same; empty where it may be a registration.

    Args:
        flow: the result.
        measures: of the pair, `folding_percent` and `displacement_mean_voxels` among them.
    """
    if not flow.isfinite().all():
        return "the flow is not finite"
    folded = measures["folding_percent"]
    if folded > MIRRORED:
        return f"the scan is mirrored or collapsed ({folded:.0f} % folded)"
    mean, diagonal = measures["displacement_mean_voxels"], math.hypot(*size_of(flow))
    if mean > diagonal:
        return f"the scan is thrown out of the volume ({mean:.0f} voxels on average, its diagonal is {diagonal:.0f})"
    return ""


def with_stages(method: Cascade | Method) -> Cascade:
    """The method, which must be a cascade.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(method, Cascade):
        raise ValueError("stages=true measures after every network, and this method has none: leave it out.")
    return method


def _no_result(batch: Batch) -> Registration:
    moving = torch.full_like(batch["moving"], math.nan)
    flow = moving.expand(-1, 3, -1, -1, -1)
    stage = Stage(flow=flow, totals={0: flow}, moved=moving)
    return Registration(moving=moving, stages=(stage,), supervised=(stage,))
