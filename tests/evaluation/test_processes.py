"""The share that each process has of an evaluation."""

import os
import threading
from dataclasses import dataclass

import pandas as pd
import pytest

from regcascade.data import build_data
from regcascade.evaluation.baselines import build_method
from regcascade.evaluation.processes import ALONE, Share, devices_of, together
from regcascade.evaluation.run import evaluate_to_folder


def test_one_device_is_one_process_without_a_group():
    fabric = devices_of("cpu", 1, 1)
    with together(fabric) as share:
        assert share == ALONE
        share.wait()
        share.check_parent()


@pytest.mark.parametrize(
    ("devices", "nodes", "said"),
    [
        (0, 1, "devices=0"),
        ("many", 1, "devices=many"),
        (99, 1, "devices=99 on a CPU: a process each, and there are 4 CPU cores.*or accelerator=gpu"),
        (1, 2, "num_nodes=2, and no launcher started this process.*srun --nodes 2.*torchrun.*NODE_RANK"),
    ],
)
def test_devices_that_cannot_be_are_told(devices, nodes, said, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match=said):
        devices_of("cpu", devices, nodes)


def test_a_process_ends_with_the_one_that_started_it():
    Share(1, 2, os.getppid()).check_parent()
    with pytest.raises(SystemExit, match="was ended"):
        Share(1, 2, os.getppid() + 1).check_parent()


@dataclass(frozen=True)
class Thread(Share):
    """A thread in place of a process."""

    barrier: threading.Barrier | None = None

    def wait(self):
        assert self.barrier is not None
        self.barrier.wait(timeout=300)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shared_or_not_the_tables_are_the_same(count, tmp_path):
    data = build_data({"name": "phantom", "size": [16, 16, 16], "train": 2, "validation": 3, "validation_pairs": 5})
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    method = build_method("identity")
    evaluate_to_folder(method, data, alone, None)
    barrier = threading.Barrier(count)
    given = [(method, data, shared, None, None, "cpu", False, Thread(k, count, None, barrier)) for k in range(count)]
    threads = [threading.Thread(target=evaluate_to_folder, args=args) for args in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tables = [pd.read_csv(folder / "pairs.csv").drop(columns="seconds") for folder in (alone, shared)]
    pd.testing.assert_frame_equal(*tables)
    assert sorted(path.name for path in shared.iterdir()) == ["pairs.csv", "summary.json"]
