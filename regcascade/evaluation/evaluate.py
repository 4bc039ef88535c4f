"""Register pairs of scans and measure each: a row per pair."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device

from regcascade.cascades import Cascade
from regcascade.evaluation.baselines import Method, RegistrationFailed
from regcascade.evaluation.layout import BEFORE, FAILED
from regcascade.evaluation.stages import network_starts, stage_names, stage_rows
from regcascade.geometry.warp import warp_labels
from regcascade.metrics.inverse_consistency import inverse_consistency_measures
from regcascade.metrics.learn2reg import learn2reg_measures
from regcascade.metrics.pair import pair_measures
from regcascade.registration import Registration, Stage
from regcascade.types import Batch, Flow, Image, size_of, swapped
from regcascade.utils.memory import MIB
from regcascade.utils.registry import check_choice
from regcascade.utils.timing import read_clock

MIRRORED = 50.0  # percent of folded voxels; more means that the scan was turned inside out


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation does with each pair.

    Attributes:
        r: how often each network is applied, see `Cascade.forward`.
        repeat: `stage` repeats each in place, `chain` the whole chain.
        labels: how labels are warped, `nearest` or `linear`, see `warp_labels`.
        metrics: `plain`, or `learn2reg` to add the measures of Learn2Reg's evaluator.
        stages: whether to measure after every stage too.
        directions: `one`, or `both` to register each pair the other way too, for the inverse-consistency error.
    """

    r: int = 1
    repeat: str = "stage"
    labels: str = "nearest"
    metrics: str = "plain"
    stages: bool = False
    directions: str = "one"

    def __post_init__(self) -> None:
        check_choice("labels", self.labels, ["nearest", "linear"])
        check_choice("metrics", self.metrics, ["plain", "learn2reg"])
        check_choice("directions", self.directions, ["one", "both"])


class Evaluated(NamedTuple):
    """The measures of one pair.

    Attributes:
        row: row of `pairs.csv`.
        stages: rows of `stages.csv`; empty unless asked for.
        first_call_seconds: of the first pair, the time of an extra registration that sets up the device.
    """

    row: dict[str, Any]
    stages: list[dict[str, Any]]
    first_call_seconds: float | None


def evaluate(
    method: Cascade | Method,
    pairs: Iterable[Batch],
    label_names: Mapping[int, str],
    options: EvaluationOptions | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Evaluated]:
    """Register pairs one after another and measure each.

    Args:
        method: a cascade, which is moved to `device` and set to evaluation, or another method.
        pairs: batches of one pair.
        label_names: the labels that count.
        options, device: what to do with each pair, and where.

    Yields:
        For each pair a row of `fixed`, `moving`, the measures of `pair_measures` and of the options, `seconds` (of the
        registration alone), `peak_memory_mib` (on a GPU), `failed`, and the measures before registration with the
        suffix `_before`, except the displacement.

    Raises:
        ValueError: if stages are asked for of a method that has none.
    """
    options, device = options or EvaluationOptions(), torch.device(device)
    names = []
    if isinstance(method, Cascade):
        method.to(device).eval()
        names = stage_names(method, options.r, options.repeat)
    elif options.stages:
        raise ValueError("stages=true measures after every network, and this method has none: leave it out.")
    for number, batch in enumerate(pairs):
        batch = move_data_to_device(batch, device)
        with torch.inference_mode():
            warms_up = number == 0 and isinstance(method, Cascade)
            first = _attempt(method, batch, options, options.stages)[1] if warms_up else None
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            registration, seconds, starts, failure = _attempt(method, batch, options, options.stages)
            used = {"seconds": seconds}
            if device.type == "cuda":
                used["peak_memory_mib"] = torch.cuda.max_memory_allocated(device) / MIB
            after = _measures(batch, registration.moved, registration.flow, label_names, options)
            if options.directions == "both":
                back = _attempt(method, swapped(batch), options, stages=False)[0].flow
                after |= inverse_consistency_measures(registration.flow, back, batch.get("fixed_spacing"))
            before = _measures(batch, batch["moving"], torch.zeros_like(registration.flow), label_names, options)
            stages = []
            if options.stages:
                stages = stage_rows(batch, registration, names, starts, seconds, label_names, options.labels)
        names_of = {"fixed": batch["fixed_name"][0], "moving": batch["moving_name"][0]}
        failed = {FAILED: failure or flaw(registration.flow, after)}
        before = {name + BEFORE: value for name, value in before.items() if not name.startswith("displacement_")}
        yield Evaluated({**names_of, **after, **used, **failed, **before}, stages, first)


def _attempt(
    method: Cascade | Method, batch: Batch, options: EvaluationOptions, stages: bool
) -> tuple[Registration, float, list[float], str]:
    """Register a batch of one pair: the result (NaN if it failed), seconds, when networks began, and why it failed."""
    moving, device = batch["moving"], batch["moving"].device
    watched: AbstractContextManager[list[float]] = nullcontext([])
    if stages and isinstance(method, Cascade):
        watched = network_starts(method, device)
    with watched as starts:
        start = read_clock(device)
        try:
            registration = method.register(batch, options.r, options.repeat)
        except RegistrationFailed as failure:
            nothing = torch.full_like(moving, math.nan)
            flow = nothing.expand(-1, 3, -1, -1, -1)
            stage = Stage(flow=flow, totals={0: flow}, moved=nothing)
            return Registration(nothing, (stage,), (stage,)), math.nan, [], str(failure)
        seconds = read_clock(device) - start
    return registration, seconds, [each - start for each in starts], ""


def flaw(flow: Flow, measures: Mapping[str, float]) -> str:
    """Say why a flow with its `pair_measures` counts as a failure; empty if it may be a registration."""
    if not flow.isfinite().all():
        return "the flow is not finite"
    folded = measures["folding_percent"]
    if folded > MIRRORED:
        return f"the scan is mirrored or collapsed ({folded:.0f} % folded)"
    mean, diagonal = measures["displacement_mean_voxels"], math.hypot(*size_of(flow))
    if mean > diagonal:
        return f"the scan is thrown out of the volume ({mean:.0f} voxels on average, its diagonal is {diagonal:.0f})"
    return ""


def _measures(
    pair: Batch, moved: Image, flow: Flow, label_names: Mapping[int, str], options: EvaluationOptions
) -> dict[str, float]:
    labels = warp_labels(pair["moving_labels"], flow, options.labels) if "moving_labels" in pair else None
    measures = pair_measures(pair, moved, flow, label_names, labels)
    if options.metrics == "learn2reg":
        measures |= learn2reg_measures(pair, flow, list(label_names))
    return measures
