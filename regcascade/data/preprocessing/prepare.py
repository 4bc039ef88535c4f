"""Raw scans to prepared cases: in parallel, resumable, each case whole or not there."""

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

# What the disk says of itself rather than of a case: no other case will fare better.
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
class Reference:
    """The prepared case that scans are aligned to: its name, its file, and the hash of what it was made from."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Job:
    """What is done to every scan: where cases go, the options of the recipe, how images are stored, which label values
    may occur (none given: any), and what the scans are aligned to, if anything."""

    out: Path
    recipe: dict[str, Any]
    store: str = "float32"
    known: frozenset[int] = frozenset()
    reference: Reference | None = None


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

    A case that is there, from the same files by the same recipe and in the same group, is kept. A bad scan is left out
    and reported. The manifest is written last, and again by every run.

    Args:
        sources: the raw scans.
        out: the folder to write.
        recipe: its name, or a mapping with `name` and options.
        label_names: what each label value means; a scan with any other is left out. None names those found
            `label_<value>`.
        exclude: names to leave out.
        workers: processes side by side.
        store: how images are stored, `float32`, `float16` or `uint8`.
        align: what to align every scan to by an affine map, for `affine=precomputed`: the name of one of them, or the
            file of a prepared case, such as the atlas of another set.

    Returns:
        What became of each scan, in the order of `sources`.

    Raises:
        ValueError: for a recipe, an excluded name or a scan to align to that is not known or no good.
        OSError: if the disk is full or cannot be written; finished cases stay.
    """
    options = build_recipe(recipe).as_dict()
    unknown = sorted(set(exclude) - {source.name for source in sources})
    if unknown:
        raise ValueError(f"The list of excluded names has {unknown[0]!r}, which is no scan's name.")
    (out / CASES).mkdir(parents=True, exist_ok=True)
    wanted = [source for source in sources if source.name not in set(exclude)]
    check_choice("store", store, STORED)
    job = Job(out, options, store, frozenset(label_names or {}))
    if align is not None:
        job = replace(job, reference=_reference(align, wanted, job))
    outcomes = {name: Outcome(name, EXCLUDED) for name in exclude}
    console = Console(stderr=True)
    results = _in_parallel(wanted, job, workers)
    for outcome in track(results, "Preparing scans", len(wanted), console=console, transient=True):
        outcomes[outcome.name] = outcome
    records = [
        read_record(case_file(out, outcome.name)) for outcome in outcomes.values() if outcome.outcome in (DONE, KEPT)
    ]
    present = sorted({value for record in records for value in record.labels or ()})
    names = {value: (label_names or {}).get(value, f"label_{value}") for value in {*present, *(label_names or {})}}
    write_manifest(out, records, dict(sorted(names.items())))
    ordered = [outcomes[source.name] for source in sources]
    with written_whole(out / REPORT) as temporary:
        pd.DataFrame([vars(outcome) for outcome in ordered]).to_csv(temporary, index=False)
    return ordered


def prepare_scan(
    source: Source, recipe: Spec, store: str = "float32"
) -> tuple[Record, Tensor, Tensor | None, Tensor | None]:
    """Read one scan and apply a recipe: what is known of the case, its image, labels and points.

    Raises:
        ValueError: naming the file, for whatever is wrong with it.
    """
    built = build_recipe(recipe)
    image, fitted, points, raw = built.read(source)
    values = None if fitted is None else [int(value) for value in fitted.unique() if value > 0]
    record = Record(
        name=source.name,
        size=list(image.shape[1:]),
        affine=np.asarray(image.affine, dtype=float).tolist(),
        labels=values,
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


def _reference(align: str, sources: Sequence[Source], job: Job) -> Reference:
    """The case to align to: a file, or a scan of these, which is prepared first."""
    path = Path(align)
    if path.suffix != case_file(job.out, "x").suffix:
        source = next((source for source in sources if source.name == align), None)
        if source is None:
            hint = did_you_mean(align, [source.name for source in sources])
            raise ValueError(f"There is no scan {align!r} to align to.{hint} Or give the file of a prepared case.")
        outcome = _one(source, job)
        if outcome.outcome == FAILED:
            raise ValueError(f"The scan to align to, {align}, cannot be prepared: {outcome.reason}")
        path = case_file(job.out, align)
    record = read_record(path)
    return Reference(record.name, path, record.source["sha256"])


def _in_parallel(sources: Sequence[Source], job: Job, workers: int) -> Iterator[Outcome]:
    if workers <= 1:
        for source in sources:
            yield _one(source, job)
        return
    # Fresh processes: a forked one inherits locks that another thread of this one may hold.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        futures = [pool.submit(_one, source, job) for source in sources]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "A process was killed while it prepared scans, as happens where memory is short: give fewer --workers. "
                "Finished cases stay."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker() -> None:
    """One thread each, and an end when the main process ends: killed, it cannot tell them to."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(source: Source, job: Job) -> Outcome:
    """Prepare one scan, unless that is done."""
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
    """Whether a case's file is whole, of these very files, by this recipe, and aligned to this reference if to any."""
    try:
        record = read_record(path)
    except ValueError:
        return False
    same = json.dumps([record.recipe, record.store], sort_keys=True) == json.dumps(
        [job.recipe, job.store], sort_keys=True
    )
    same = same and record.group == source.group
    if job.reference is not None:
        same = same and (record.alignment or {}).get("sha256") == job.reference.sha256
    return same and source.image.exists() and record.source["sha256"] == source.digest()


def _check_labels(record: Record, known: frozenset[int]) -> None:
    unknown = [value for value in record.labels or () if known and value not in known]
    if unknown:
        raise ValueError(
            f"{record.source['image']}: its labels have the values {unknown}, which the label names lack. Name "
            "them, or set relabel of the recipe: {7: 0} takes 7 out."
        )


def _alignment(record: Record, image: Tensor, reference: Reference) -> dict[str, Any]:
    """What a record says of the affine map from the reference to its scan."""
    matrix = np.eye(4)
    if record.source["sha256"] != reference.sha256:
        affine = read_record(reference.path).affine
        fixed = MetaTensor(read_case(reference.path).image, affine=torch.tensor(affine, dtype=torch.float64))
        moving = MetaTensor(image, affine=torch.tensor(record.affine, dtype=torch.float64))
        try:
            matrix = affine_alignment(fixed, moving)
        except ValueError as error:
            raise ValueError(f"{record.source['image']}: {error}") from error
    return {"name": reference.name, "sha256": reference.sha256, "matrix": matrix.tolist()}
