"""Whether training waits for its scans: a pair of prepared cases at 128^3 through two workers, against a training step.

The pairs are random ones of `data=prepared`, float32 with labels, in memory-mapped files that the system may keep in
its cache; the step is that of VoxelMorph, CR, n = 1, batch 1: `python benchmarks/loading.py`.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from comparison import Row, options, report

from regcascade.cascades import build
from regcascade.data import build_data
from regcascade.data.preprocessing.case_files import Record, case_file, write_case, write_manifest
from regcascade.losses import Objective
from regcascade.types import Batch

SIZE = (128, 128, 128)
CASES, WORKERS, WARM_UP, STEPS = 8, 2, 4, 3
LIMIT = 1.0


def main() -> None:
    """Time the loader alone, then steps alone."""
    given = options(__doc__, repeats=60)
    with tempfile.TemporaryDirectory() as folder:
        _write_cases(Path(folder))
        chosen = {"validation": 2, "validation_pairs": 1, "num_workers": WORKERS}
        data = build_data({"name": "prepared", "root": folder, "pairs_per_epoch": WARM_UP + given.repeats, **chosen})
        loader = iter(data.train_dataloader())
        batch: Batch = next(loader)
        for _ in range(WARM_UP - 1):
            next(loader)
        start = time.perf_counter()
        count = sum(1 for _ in loader)
        reading = (time.perf_counter() - start) / count
    print(f"{1 / reading:.1f} pairs a second, {2 / reading:.1f} scans, {WORKERS} workers")
    row = Row("a pair at 128^3 read, against a training step", {"regcascade": reading, "step": _step(batch)}, LIMIT)
    report("loading", [row], given)


def _write_cases(root: Path) -> None:
    random = torch.Generator().manual_seed(0)
    records = []
    for k in range(CASES):
        source = {"image": "none", "sha256": str(k)}
        record = Record(f"case_{k}", list(SIZE), np.eye(4).tolist(), [1], None, None, source, {"name": "generic"})
        case_file(root, record.name).parent.mkdir(parents=True, exist_ok=True)
        image = torch.rand(1, *SIZE, generator=random)
        write_case(case_file(root, record.name), record, image, (image > 0.5).to(torch.int16), None)
        records.append(record)
    write_manifest(root, records, {1: "liver"})


def _step(batch: Batch) -> float:
    """Median seconds of a training step."""
    cascade, objective = build(), Objective()
    optimizer = torch.optim.Adam(cascade.parameters(), lr=1e-4, fused=True)
    seconds = []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        objective(cascade.register(batch), batch["fixed"])["loss"].backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
