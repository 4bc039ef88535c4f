"""Register pairs of scans and measure each: a row per pair."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device

from regcascade.cascades import Cascade
from regcascade.evaluation.baselines import Method
from regcascade.evaluation.layout import BEFORE, FAILED
from regcascade.evaluation.stages import stage_names, stage_rows
from regcascade.evaluation.trial import attempt, flaw, with_stages
from regcascade.geometry.warp import warp_labels
from regcascade.metrics.inverse_consistency import inverse_consistency_measures
from regcascade.metrics.learn2reg import learn2reg_measures
from regcascade.metrics.pair import pair_measures
from regcascade.types import Batch, Flow, Image, swapped
from regcascade.utils.memory import MIB
from regcascade.utils.registry import check_choice


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation does with each pair.

    Attributes:
        r, repeat: how often each network is applied, see `Cascade.forward`.
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
    """What was measured of one pair.

    Attributes:
        row: of `pairs.csv`.
        stages: rows of `stages.csv`; none unless asked for.
        first_call_seconds: of the first pair, the time of a registration before the one that counts. It sets up the
            device.
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
        pairs: batches of one pair, as `RegistrationData` yields them for evaluation.
        label_names: the labels that count.
        options: what to do with each pair.
        device: where to run.

    Yields:
        Of each pair a row of `fixed`, `moving`, the measures of `pair_measures` and of the options, `seconds` (of the
        registration alone), `peak_memory_mib` (on a GPU), `failed`, and the measures before registration with the
        suffix `_before`, except the displacement, which is 0 then.

    Raises:
        ValueError: if stages are asked for of a method that has none.
    """
    options = options or EvaluationOptions()
    device = torch.device(device)
    if isinstance(method, Cascade):
        method.to(device).eval()
    for number, batch in enumerate(pairs):
        batch = move_data_to_device(batch, device)
        with torch.inference_mode():
            warms_up = number == 0 and isinstance(method, Cascade)
            first = attempt(method, batch, options.r, options.repeat, options.stages).seconds if warms_up else None
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            registration, seconds, starts, failure = attempt(method, batch, options.r, options.repeat, options.stages)
            used = {"seconds": seconds}
            if device.type == "cuda":
                used["peak_memory_mib"] = torch.cuda.max_memory_allocated(device) / MIB
            after = _measures(batch, registration.moved, registration.flow, label_names, options)
            if options.directions == "both":
                back = attempt(method, swapped(batch), options.r, options.repeat, stages=False).registration.flow
                after |= inverse_consistency_measures(registration.flow, back, batch.get("fixed_spacing"))
            before = _measures(batch, batch["moving"], torch.zeros_like(registration.flow), label_names, options)
            stages = []
            if options.stages:
                names = stage_names(with_stages(method), options.r, options.repeat)
                stages = stage_rows(batch, registration, names, starts, seconds, label_names, options.labels)
        names_of = {"fixed": batch["fixed_name"][0], "moving": batch["moving_name"][0]}
        failed = {FAILED: failure or flaw(registration.flow, after)}
        before = {name + BEFORE: value for name, value in before.items() if not name.startswith("displacement_")}
        yield Evaluated({**names_of, **after, **used, **failed, **before}, stages, first)


def _measures(
    pair: Batch, moved: Image, flow: Flow, label_names: Mapping[int, str], options: EvaluationOptions
) -> dict[str, float]:
    labels = None
    if "moving_labels" in pair:
        labels = warp_labels(pair["moving_labels"], flow, options.labels)
    measures = pair_measures(pair, moved, flow, label_names, labels)
    if options.metrics == "learn2reg":
        measures |= learn2reg_measures(pair, flow, list(label_names))
    return measures
