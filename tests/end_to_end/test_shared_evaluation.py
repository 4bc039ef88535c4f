"""Several processes share an evaluation: killed and gone on with in other numbers, failing, under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds: only a hang takes as long, whatever else the machine does
SHARED = ["data=phantom", "data.size=[16,16,16]", "data.validation=4", "accelerator=cpu"]
METHOD = '''
"""No registration, slowly, noting every pair it is asked for; with BREAKS set the second process fails at once."""
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from regcascade.evaluation.baselines.base import METHODS, Method


@METHODS.register("slow")
@dataclass(frozen=True)
class Slow(Method):
    def register(self, batch, r=1, repeat="stage"):
        with Path("asked.txt").open("a") as file:
            file.write(f"{batch['fixed_name'][0]} {batch['moving_name'][0]}\\n")
        if os.environ.get("LOCAL_RANK") == "1" and "BREAKS" in os.environ:
            raise ValueError("scan_7 is damaged")
        time.sleep(float(os.environ.get("SECONDS_A_PAIR", 0)))
        return super().register(batch, r, repeat)

    def flow(self, pair):
        return torch.zeros(3, *pair.fixed.shape)
'''


@pytest.fixture
def start(tmp_path):
    """A function that starts an evaluation of that method in a process, by torchrun or not."""
    (tmp_path / "slow.py").write_text(METHOD)

    def start(*arguments: str, by: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        everything = [*SHARED, "imports=[slow.py]", "method=identity", "method.name=slow", "paths.run=out"]
        return subprocess.Popen(
            [sys.executable, *by, str(ROOT / "evaluate.py"), *everything, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def rows_in(folder: Path) -> int:
    return sum(max(0, len(path.read_text().splitlines()) - 1) for path in folder.glob("pairs.csv*"))


@pytest.mark.long
def test_a_killed_evaluation_of_two_processes_is_ended_by_one(start, tmp_path):
    out = tmp_path / "out"
    first = start("devices=2", SECONDS_A_PAIR="0.7")
    until = time.monotonic() + PATIENCE
    while rows_in(out) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)  # of the first process only: the other is to see that and end
    first.communicate(timeout=PATIENCE)  # which waits for that other one too, since it has the same output
    before = rows_in(out)
    assert 3 <= before < 12
    assert not (out / "summary.json").exists()
    asked = len((tmp_path / "asked.txt").read_text().splitlines())
    again = start()
    output = again.communicate(timeout=PATIENCE)[0]
    assert again.returncode == 0, output
    assert len((tmp_path / "asked.txt").read_text().splitlines()) == asked + 12 - before
    pairs = pd.read_csv(out / "pairs.csv")
    assert list(zip(pairs["fixed"], pairs["moving"], strict=True)) == sorted(
        zip(pairs["fixed"], pairs["moving"], strict=True)
    )
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["pairs"], summary["processes"], len(pairs)) == (12, 1, 12)
    assert not list(out.glob("*.part"))


@pytest.mark.long
def test_two_processes_of_torchrun_write_one_result(start, tmp_path):
    run = start("devices=2", by=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    output = run.communicate(timeout=PATIENCE)[0]
    assert run.returncode == 0, output
    assert output.count("Results: ") == 1
    assert json.loads((tmp_path / "out/summary.json").read_text())["processes"] == 2
    assert len(pd.read_csv(tmp_path / "out/pairs.csv")) == 12
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert len(asked) == len(set(asked)) == 12


@pytest.mark.long
def test_a_process_that_fails_ends_all_with_its_message(start, tmp_path):
    run = start("devices=2", BREAKS="1", SECONDS_A_PAIR="5")
    output = run.communicate(timeout=PATIENCE)[0]
    assert run.returncode != 0
    assert "Error: scan_7 is damaged" in output
    assert len((tmp_path / "asked.txt").read_text().splitlines()) < 12
    assert not (tmp_path / "out/summary.json").exists()
