"""Run a cascade, or another method, over pairs: a row of measures per pair, and their summary."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from regcascade.attempts import attempt, flaw, with_stages
from regcascade.cascades import Cascade
from regcascade.checkpoint import file_hash
from regcascade.data import RegistrationData
from regcascade.evaluation_tables import (
    FAILED,
    PAIRS,
    SET,
    STAGES,
    begin,
    gather_rows,
    growing_table,
    pairs_done,
    read_pairs,
)
from regcascade.files import git_state, written_whole
from regcascade.inverse_consistency import inverse_consistency_measures
from regcascade.learn2reg_measures import learn2reg_measures
from regcascade.methods import Method
from regcascade.metrics import pair_measures
from regcascade.registry import check_choice
from regcascade.sharing import ALONE, Share
from regcascade.spatial import warp_labels
from regcascade.stages import stage_names, stage_rows
from regcascade.types import Batch, Flow, Image, swapped
from regcascade.version import __version__

BEFORE = "_before"
SUMMARY = "summary.json"
MIB = 2**20


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation does with each pair.

    Attributes:
        r, repeat: how often each network is applied, see `Cascade.forward`.
        labels: how labels are warped, `nearest` or `linear`, see `warp_labels`.
        metrics: `plain`, or `learn2reg` for the measures of Learn2Reg's evaluator beside them.
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
        first_call_seconds: of the first pair, the time of the first registration, which sets the device up and does
            not count in `seconds`.
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
        Of each pair a row of `fixed`, `moving`, the measures of `pair_measures` and those of the options, `seconds`,
        the time of the registration alone, `peak_memory_mib` where the device is a GPU, `failed`, and the measures
        before registration with the suffix `_before`, less those of the displacement, which is 0 then.

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


def evaluate_to_folder(
    method: Cascade | Method,
    data: RegistrationData,
    folder: Path,
    checkpoint: Path | None,
    options: EvaluationOptions | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    share: Share = ALONE,
) -> pd.DataFrame:
    """Evaluate on the evaluation pairs of a data module; write `pairs.csv` row by row and `summary.json` at the end.

    Rows go out as they come and none is kept, so that memory does not grow with the number of pairs until the summary
    reads them back. Several processes write to files of their own, which the first gathers at the end, or when the
    evaluation goes on, into tables in the order of the pairs. Where the data module mixes several sets, the rows say
    of which set the moving scan is, and the summary has each.

    Args:
        method: a cascade or another method.
        data: whose evaluation pairs to run over.
        folder: where to write.
        checkpoint: the file the cascade is from, if it is of one.
        options: what to do with each pair.
        device: where to run.
        resume: go on after the rows that are there, which `resuming.can_resume` allowed; else begin anew.
        share: which of the pairs this process has, where several run this at once.

    Returns:
        The rows of `pairs.csv`, of all processes.
    """
    options = options or EvaluationOptions()
    tables = [PAIRS, *([STAGES] if options.stages else [])]
    if share.rank == 0:
        if not resume:
            (folder / SUMMARY).unlink(missing_ok=True)  # of another evaluation
        begin(folder, tables, data.validation_pairs, resume)
    share.wait()
    done = pairs_done(folder)
    growing = {name: growing_table(folder / name, share) for name in tables}
    share.wait()  # so that all have seen the same rows before there are more
    loader = _remaining(data, done, share)
    first: float | None = None
    found = evaluate(method, loader, data.label_names, options, device)
    what = "Registering pairs" if share.of == 1 else f"Registering pairs, 1 of {share.of} processes"
    console = Console(stderr=True)
    quiet = share.rank > 0 or not len(loader)
    for each in track(found, what, len(loader), console=console, transient=True, disable=quiet):
        share.check_parent()
        for row in each.stages:
            growing[STAGES].append(row)
        name = data.set_of(each.row["moving"])  # an atlas is fixed for scans of every set
        growing[PAIRS].append(({SET: name} if name else {}) | each.row)  # last: a pair is done with its stages
        first = first if each.first_call_seconds is None else each.first_call_seconds
    share.wait()
    if share.rank == 0:
        if len(done) < len(data.validation_pairs):
            gather_rows(folder, tables, data.validation_pairs)
        if len(done) < len(data.validation_pairs) or not (folder / SUMMARY).is_file():
            table = read_pairs(folder)
            if len(table) != len(data.validation_pairs):
                raise RuntimeError(f"{len(table)} of {len(data.validation_pairs)} pairs were evaluated: {folder}.")
            _write_summary(folder, table, method, checkpoint, options, torch.device(device), first, share.of)
    share.wait()
    return read_pairs(folder)


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation over pairs of every measure; None where no pair has it, or there is one only."""
    numbers = rows.select_dtypes("number")
    mean, std = numbers.mean(), numbers.std(ddof=1)
    return {name: {"mean": _plain(mean[name]), "std": _plain(std[name])} for name in numbers.columns}


def parts(cascade: Cascade) -> list[tuple[str, int]]:
    """The parts of a cascade and their parameters, for `model_table`."""
    return [
        (name, sum(parameter.numel() for parameter in part.parameters())) for name, part in cascade.named_children()
    ]


def failures(rows: pd.DataFrame) -> int:
    """How many pairs have failed."""
    return int((rows[FAILED] != "").sum()) if FAILED in rows else 0


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


def _remaining(data: RegistrationData, done: set[tuple[str, str]], share: Share) -> DataLoader:
    """The loader of the evaluation pairs, less those that are done, and of these the share of a process."""
    loader = data.test_dataloader()
    if not done and share.of == 1:
        return loader
    left = [number for number, pair in enumerate(data.validation_pairs) if pair not in done]
    return DataLoader(
        Subset(loader.dataset, left[share.rank :: share.of]),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        collate_fn=loader.collate_fn,
    )


def _write_summary(
    folder: Path,
    table: pd.DataFrame,
    method: Cascade | Method,
    checkpoint: Path | None,
    options: EvaluationOptions,
    device: torch.device,
    first_call_seconds: float | None,
    processes: int,
) -> None:
    summary = {
        "pairs": len(table), "failures": failures(table), **method.about(options.r, options.repeat),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "checkpoint_sha256": None if checkpoint is None else file_hash(checkpoint),
        "commit": git_state()["commit"], "version": __version__,
        "label_interpolation": options.labels, "metrics": options.metrics, "device": device.type,
        "processes": processes, "first_call_seconds": first_call_seconds, "measures": summarise(table),
    }  # fmt: skip
    if SET in table:
        sets = table.groupby(SET, sort=False)
        summary["sets"] = {name: {"pairs": len(part), "measures": summarise(part)} for name, part in sets}
    with written_whole(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
