"""Run a cascade over pairs: a row of measures per pair, and their summary."""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from rich.console import Console
from rich.progress import track

from regcascade.cascades import Cascade
from regcascade.checkpoint import file_hash
from regcascade.data import RegistrationData
from regcascade.files import git_state, written_whole
from regcascade.metrics import pair_measures
from regcascade.types import Batch
from regcascade.version import __version__

BEFORE = "_before"
SET = "set"  # a column where pairs are of several sets
MIB = 2**20


def evaluate(
    cascade: Cascade,
    pairs: Iterable[Batch],
    label_names: Mapping[int, str],
    r: int = 1,
    repeat: str = "stage",
    device: torch.device | str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Register pairs one after another and measure each.

    Args:
        cascade: the model; it is moved to `device` and set to evaluation.
        pairs: batches of one pair, as `RegistrationData` yields them for evaluation.
        label_names: the labels that count.
        r, repeat: how often each network is applied, see `Cascade.forward`.
        device: where to run.

    Yields:
        A row per pair: `fixed`, `moving`, the measures of `pair_measures`, the same before registration with the
        suffix `_before`, and `seconds`, the time of the network alone.
    """
    device = torch.device(device)
    cascade.to(device).eval()
    for number, batch in enumerate(pairs):
        batch = move_data_to_device(batch, device)
        with torch.inference_mode():
            if number == 0:  # the first call sets the device up, which is not the registration's time
                cascade.register(batch, r, repeat)
            _wait_for(device)
            start = time.perf_counter()
            registration = cascade.register(batch, r, repeat)
            _wait_for(device)
            seconds = time.perf_counter() - start
            after = pair_measures(batch, registration.moved, registration.flow, label_names)
            before = pair_measures(batch, batch["moving"], torch.zeros_like(registration.flow), label_names)
        yield {
            "fixed": batch["fixed_name"][0],
            "moving": batch["moving_name"][0],
            **after,
            "seconds": seconds,
            **{name + BEFORE: value for name, value in before.items()},
        }


def evaluate_to_folder(
    cascade: Cascade,
    data: RegistrationData,
    folder: Path,
    checkpoint: Path | None,
    r: int = 1,
    repeat: str = "stage",
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Evaluate on the evaluation pairs of a data module; write `pairs.csv` row by row and `summary.json` at the end.

    Where the data module mixes several sets, the rows say of which set the moving scan is, and the summary has each.

    Returns:
        The rows of `pairs.csv`.
    """
    loader = data.test_dataloader()
    rows: list[dict[str, Any]] = []
    with (folder / "pairs.csv").open("w", newline="") as file:
        found = evaluate(cascade, loader, data.label_names, r, repeat, device)
        for row in track(found, "Registering pairs", len(loader), console=Console(stderr=True), transient=True):
            name = data.set_of(row["moving"])  # an atlas is fixed for scans of every set
            row = ({SET: name} if name else {}) | row
            pd.DataFrame([row]).to_csv(file, header=not rows, index=False)
            file.flush()
            rows.append(row)
    table = pd.DataFrame(rows)
    summary = {
        "pairs": len(table), "n": cascade.n, "r": r, "repeat": repeat, **model_size(cascade),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "checkpoint_sha256": None if checkpoint is None else file_hash(checkpoint),
        "commit": git_state()["commit"], "version": __version__, "measures": summarise(table),
    }  # fmt: skip
    if SET in table:
        sets = table.groupby(SET, sort=False)
        summary["sets"] = {name: {"pairs": len(part), "measures": summarise(part)} for name, part in sets}
    with written_whole(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return table


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation over pairs of every measure; None where no pair has it, or there is one only."""
    numbers = rows.select_dtypes("number")
    mean, std = numbers.mean(), numbers.std(ddof=1)
    return {name: {"mean": _plain(mean[name]), "std": _plain(std[name])} for name in numbers.columns}


def model_size(cascade: Cascade) -> dict[str, float | int]:
    """Parameters, MiB of float32 weights, and MiB as the second paper counts (weights and Adam's two moments)."""
    parameters = sum(parameter.numel() for parameter in cascade.parameters())
    return {
        "parameters": parameters,
        "weights_mib": round(4 * parameters / MIB, 3),
        "paper_size_mib": round(12 * parameters / MIB, 3),
    }


def parts(cascade: Cascade) -> list[tuple[str, int]]:
    """The parts of a cascade and their parameters, for `model_table`."""
    return [
        (name, sum(parameter.numel() for parameter in part.parameters())) for name, part in cascade.named_children()
    ]


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
