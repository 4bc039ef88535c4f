"""Prepare raw scans: in parallel, resumable, each case whole or not there."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.data.meta_tensor import MetaTensor
from rich.console import Console
from rich.progress import track
from torch import Tensor

from regcascade.data.io.raw_scan import Source
from regcascade.data.options import check_count
from regcascade.data.preprocessing.alignment import align as affine_alignment
from regcascade.data.preprocessing.case_files import (
    CASES,
    STORED,
    Record,
    case_file,
    read_case,
    read_record,
    write_case,
    write_manifest,
)
from regcascade.data.preprocessing.recipes import build_recipe
from regcascade.utils.files import written_whole
from regcascade.utils.registry import Spec, check_choice, did_you_mean

# Errors of the disk rather than of a case; they stop the run.
_DISK = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT}
REPORT = "report.csv"
DONE, KEPT, EXCLUDED, FAILED = "prepared", "kept", "excluded", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: `prepared`, `kept` from an earlier run, `excluded`, or `failed` and why."""

    name: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What is done to every scan."""

    out: Path  # the folder of the prepared cases
    recipe: dict[str, Any]  # its name and options
    store: str  # the type of the images on disk
    known: frozenset[int]  # the label values that may occur; empty for any
    reference: Path | None = None  # the file of the prepared case to align to


def prepare(
    sources: Sequence[Source],
    out: Path,
    recipe: Spec,
    *,
    label_names: Mapping[int, str] | None = None,
    exclude: Sequence[str] = (),
    workers: int = 1,
    store: str = "float32",
    align: str | None = None,
) -> list[Outcome]:
    """Prepare scans into a folder: a file per case, `manifest.json`, `report.csv`.

    Gives what became of each scan, in the order of `sources`. A case of the same files, recipe and group is kept. A bad
    scan is left out and reported. Every run writes the manifest, last.

    Args:
        sources: the raw scans.
        out: the folder to write.
        recipe: its name, or a mapping with `name` and options.
        label_names: of label values; a scan with any other value is left out. None names those found `label_<value>`.
        exclude: names to leave out.
        workers: processes side by side.
        store: the type of the images on disk, `float32`, `float16` or `uint8`.
        align: the reference of the affine alignment, for `affine=precomputed`: the name of one of the scans, or the
            file of a prepared case.

    Raises:
        ValueError: for a recipe, number of workers, excluded name or reference that is unknown or unusable.
        OSError: if the disk is full or cannot be written; finished cases stay.
    """
    options, names = build_recipe(recipe).as_dict(), dict(label_names or {})
    check_count("--workers", workers, 1)
    unknown = sorted(set(exclude) - {source.name for source in sources})
    if unknown:
        raise ValueError(f"The list of excluded names has {unknown[0]!r}, which is no scan's name.")
    (out / CASES).mkdir(parents=True, exist_ok=True)
    wanted = [source for source in sources if source.name not in exclude]
    check_choice("store", store, STORED)
    job = Job(out, options, store, frozenset(names))
    if align is not None:
        job = replace(job, reference=_reference(align, wanted, job))
    outcomes = {name: Outcome(name, EXCLUDED) for name in exclude}
    results = _in_parallel(wanted, job, workers)
    for outcome in track(results, "Preparing scans", len(wanted), console=Console(stderr=True), transient=True):
        outcomes[outcome.name] = outcome
    ready = [outcome.name for outcome in outcomes.values() if outcome.outcome in (DONE, KEPT)]
    records = [read_record(case_file(out, name)) for name in ready]
    names = {value: f"label_{value}" for record in records for value in record.labels or ()} | names
    write_manifest(out, records, dict(sorted(names.items())))
    ordered = [outcomes[source.name] for source in sources]
    with written_whole(out / REPORT) as temporary:
        pd.DataFrame([vars(outcome) for outcome in ordered]).to_csv(temporary, index=False)
    return ordered


def prepare_scan(
    source: Source, recipe: Spec, store: str = "float32"
) -> tuple[Record, Tensor, Tensor | None, Tensor | None]:
    """Read one scan and apply a recipe, raising as `Recipe.read`; give record, image, labels and points of the case."""
    built = build_recipe(recipe)
    image, fitted, points, raw = built.read(source)
    record = Record(
        name=source.name,
        size=list(image.shape[1:]),
        affine=np.asarray(image.affine, dtype=float).tolist(),
        labels=None if fitted is None else [int(value) for value in fitted.unique() if value > 0],
        points=None if points is None else len(points),
        group=source.group,
        source={
            "image": str(source.image),
            **({"series": source.series} if source.series else {}),
            "shape": list(raw.image.shape[1:]),
            "affine": raw.affine.tolist(),
            "sha256": source.digest(),
        },
        recipe=built.as_dict(),
        store=store,
    )
    return record, image.as_tensor(), None if fitted is None else fitted.as_tensor(), points


def _reference(align: str, sources: Sequence[Source], job: Job) -> Path:
    """Find the file of the case to align to; prepare it first if it is one of these scans."""
    file = case_file(job.out, align)
    if Path(align).suffix == file.suffix:
        read_record(Path(align))
        return Path(align)
    source = next((source for source in sources if source.name == align), None)
    if source is None:
        hint = did_you_mean(align, [source.name for source in sources])
        raise ValueError(f"There is no scan {align!r} to align to.{hint} Or give the file of a prepared case.")
    outcome = _one(source, job)
    if outcome.outcome == FAILED:
        raise ValueError(f"The scan to align to, {align}, cannot be prepared: {outcome.reason}")
    return file


def _in_parallel(sources: Sequence[Source], job: Job, workers: int) -> Iterator[Outcome]:
    if workers == 1:
        for source in sources:
            yield _one(source, job)
        return
    # A forked process would inherit locks that another thread of this one may hold.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        futures = [pool.submit(_one, source, job) for source in sources]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "A process was killed while it prepared scans, often for lack of memory: give fewer --workers. "
                "Finished cases stay."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker() -> None:
    """Use one thread, and end when the main process is gone: killed, it cannot stop its workers."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(source: Source, job: Job) -> Outcome:
    """Prepare one scan, unless it is done already."""
    if source.problem is not None:
        return Outcome(source.name, FAILED, source.problem)
    path = case_file(job.out, source.name)
    try:
        if path.is_file() and _is_done(path, source, job):
            _check_labels(read_record(path), job.known)
            return Outcome(source.name, KEPT)
        record, image, labels, points = prepare_scan(source, job.recipe, job.store)
        _check_labels(record, job.known)
        if job.reference is not None:
            record = replace(record, alignment=_alignment(record, image, job.reference))
    # PyTorch and ITK raise RuntimeError, where memory is short too.
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        return Outcome(source.name, FAILED, str(error) or f"{source.image}: {type(error).__name__}")
    try:
        write_case(path, record, image, labels, points)
    except OSError as error:
        if error.errno in _DISK:
            raise
        return Outcome(source.name, FAILED, str(error))
    return Outcome(source.name, DONE)


def _is_done(path: Path, source: Source, job: Job) -> bool:
    """Tell whether a case's file is whole, of these files, by this recipe, and aligned to the reference if any."""
    try:
        record = read_record(path)
        read_case(path)
    except ValueError:
        return False
    if job.reference is not None:
        target = read_record(job.reference).source["sha256"]
        if (record.alignment or {}).get("sha256") != target:
            return False
    made, asked = [record.recipe, record.store, record.group], [job.recipe, job.store, source.group]
    same = json.dumps(made, sort_keys=True) == json.dumps(asked, sort_keys=True)
    return same and source.image.exists() and record.source["sha256"] == source.digest()


def _check_labels(record: Record, known: frozenset[int]) -> None:
    unknown = [value for value in record.labels or () if known and value not in known]
    if unknown:
        raise ValueError(
            f"{record.source['image']}: its labels have the values {unknown}, which the label names lack. Name "
            "them, or set relabel of the recipe: {7: 0} takes 7 out."
        )


def _alignment(record: Record, image: Tensor, reference: Path) -> dict[str, Any]:
    """Align a scan to the reference; give the `alignment` of its record."""
    target, matrix = read_record(reference), np.eye(4)
    if record.source["sha256"] != target.source["sha256"]:
        fixed, moving = (
            MetaTensor(voxels, affine=torch.tensor(of.affine, dtype=torch.float64))
            for voxels, of in ((read_case(reference).image, target), (image, record))
        )
        try:
            matrix = affine_alignment(fixed, moving)
        except ValueError as error:
            raise ValueError(f"{record.source['image']}: {error}") from error
    return {"name": target.name, "sha256": target.source["sha256"], "matrix": matrix.tolist()}
