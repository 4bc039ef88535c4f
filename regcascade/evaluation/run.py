"""Evaluate a cascade, or another method, over pairs: a row of measures per pair, and their summary."""

from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import read
from regcascade.data import RegistrationData
from regcascade.evaluation.baselines import Method
from regcascade.evaluation.evaluate import EvaluationOptions, evaluate
from regcascade.evaluation.layout import PAIRS, SET, STAGES, SUMMARY, TRAINED
from regcascade.evaluation.processes import ALONE, Share
from regcascade.evaluation.tables import clear_tables, failures, gather_rows, pairs_done, read_pairs, summarise
from regcascade.utils.append_csv import AppendCSV, part_of
from regcascade.utils.files import file_hash, git_state, write_json
from regcascade.utils.version import __version__

_TRAINED = ("model", "cascade", "n", "affine", "loss", "seed", "train_r")  # of the description of a checkpoint


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
    """Evaluate the pairs of a data module; write `pairs.csv` row by row and `summary.json` at the end.

    Of several processes, each writes a file of its own. The first gathers them in the order of the pairs, at the end
    and on resuming. If the data module mixes sets, rows name the set of the moving scan and the summary has each set.

    Args:
        method, options, device: see `evaluate`.
        data: holds the evaluation pairs.
        folder: where to write.
        checkpoint: file of the cascade, if any.
        resume: keep the rows in the folder, as `resume.can_resume` allows; else begin anew.
        share: the pairs of this process, if several run at once.

    Returns:
        The rows of `pairs.csv`, of all processes.
    """
    options = options or EvaluationOptions()
    tables = [PAIRS, *([STAGES] if options.stages else [])]
    if share.rank == 0:
        if not resume:
            (folder / SUMMARY).unlink(missing_ok=True)
            clear_tables(folder)
        gather_rows(folder, tables, data.validation_pairs)
    share.wait()
    done = pairs_done(folder)
    growing = {
        name: AppendCSV(folder / name) if share.of == 1 else AppendCSV(part_of(folder / name, share.rank), fresh=True)
        for name in tables
    }
    share.wait()  # all must see the same rows before there are more
    loader = data.test_dataloader()
    if done or share.of > 1:
        left = [number for number, pair in enumerate(data.validation_pairs) if pair not in done]
        mine = Subset(loader.dataset, left[share.rank :: share.of])
        kept = {name: getattr(loader, name) for name in ("num_workers", "pin_memory", "collate_fn")}
        loader = DataLoader(mine, **kept)
    first: float | None = None
    found = evaluate(method, loader, data.label_names, options, device)
    what = "Registering pairs" if share.of == 1 else f"Registering pairs, 1 of {share.of} processes"
    quiet = share.rank > 0 or not len(loader)
    for each in track(found, what, len(loader), console=Console(stderr=True), transient=True, disable=quiet):
        share.check_parent()
        for row in each.stages:
            growing[STAGES].append(row)
        name = data.set_of(each.row["moving"])  # an atlas is fixed for scans of every set
        growing[PAIRS].append(({SET: name} if name else {}) | each.row)  # last, since it marks the pair as done
        first = first if each.first_call_seconds is None else each.first_call_seconds
    share.wait()
    if share.rank == 0 and not (len(done) == len(data.validation_pairs) and (folder / SUMMARY).is_file()):
        gather_rows(folder, tables, data.validation_pairs)
        table = read_pairs(folder)
        if len(table) != len(data.validation_pairs):
            raise RuntimeError(f"{len(table)} of {len(data.validation_pairs)} pairs were evaluated: {folder}.")
        _write_summary(folder, table, method, checkpoint, options, torch.device(device), first, share.of)
    share.wait()
    return read_pairs(folder)


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
    if checkpoint is not None:
        trained = read(checkpoint)
        told = {key: value for key, value in trained.description.items() if key in _TRAINED}
        summary[TRAINED] = told | {"data": trained.description["data"].get("name"), "steps": trained.step}
    if SET in table:
        sets = table.groupby(SET, sort=False)
        summary["sets"] = {name: {"pairs": len(part), "measures": summarise(part)} for name, part in sets}
    write_json(folder / SUMMARY, summary)
