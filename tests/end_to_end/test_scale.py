"""Trainings that are killed and go on, that run on several ranks, and that a launcher of Hydra's starts."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from short_runs import ON_ONE_CORE

from regcascade.cascades.checkpoint import read

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
from forked import forked  # noqa: E402

TINY = [
    "data.size=[16,18,20]", "data.train=4", "data.validation=3", "data.validation_pairs=2", "data.pairs_per_epoch=7",
    "cascade=cr", "data.augmentation=bspline", "callbacks.pictures.every_n_validations=99", *ON_ONE_CORE,
]  # fmt: skip
NOISY = """
import torch
from regcascade.networks import NETS
from regcascade.networks.voxelmorph import VoxelMorph


@NETS.register("noisy")
class Noisy(VoxelMorph):
    def features(self, pair):
        return super().features(torch.nn.functional.dropout(pair, 0.2, self.training))
"""
FATAL = """
import os
import signal
from lightning.pytorch.callbacks import Callback


class KillRank(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_rank == 1 and trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def train(arguments: list[str], folder: Path) -> None:
    """What `python train.py` does, for a forked process."""
    torch.set_num_threads(1)
    os.chdir(folder)
    sys.argv = ["train.py", *arguments]
    from hydra.core.global_hydra import GlobalHydra

    from regcascade.cli.train import main

    GlobalHydra.instance().clear()
    with Path("output.txt").open("a") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        main()


def finished(arguments: list[str], folder: Path) -> str:
    process = forked(train, arguments, folder)
    process.join()
    output = (folder / "output.txt").read_text()
    assert process.exitcode == 0, output
    return output


def killed(arguments: list[str], folder: Path, rows: int) -> None:
    """Trains until there are so many new rows in metrics.csv, and a checkpoint, and kills the process then."""
    before = rows_logged(folder)
    process = forked(train, arguments, folder)
    while process.is_alive() and not (rows_logged(folder) >= before + rows and [*folder.rglob("last.ckpt")]):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, (folder / "output.txt").read_text()


def rows_logged(folder: Path) -> int:
    return sum(len(metrics.read_text().splitlines()) for metrics in folder.glob("runs/*/*/metrics.csv"))


def only_run(folder: Path) -> Path:
    (run,) = (path.parent for path in (folder / "runs").glob("*/*/config.yaml"))
    return run


@pytest.mark.long
def test_a_training_killed_at_random_ends_as_one_that_was_not(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    options = [
        *TINY, f"imports=[{tmp_path / 'noisy.py'}]", "model.name=noisy", "callbacks=[default,ema]",
        "trainer.max_steps=8", "trainer.val_check_interval=3", "trainer.accumulate_grad_batches=2",
        "optimizer.schedule=halving", "optimizer.halve_at=[3]", "optimizer.warmup_steps=4",
    ]  # fmt: skip
    seed = random.randrange(2**16)
    first, second = random.Random(seed).sample(range(3, 15), 2)
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    for folder in (stopped, straight):
        folder.mkdir()
    again = [option for option in options if option.startswith("imports")]
    killed(options, stopped, first)
    killed([*again, "ckpt_path=last"], stopped, second)
    finished([*again, "ckpt_path=last"], stopped)
    finished(options, straight)
    ours, theirs = (torch.load(only_run(of) / "checkpoints/last.ckpt", weights_only=True) for of in (stopped, straight))
    assert ours["global_step"] == theirs["global_step"] == 8
    for state in ("state_dict", "current_model_state"):
        for name, weight in ours[state].items():
            assert torch.equal(weight, theirs[state][name]), f"{state} {name}, {seed=}, {first=}, {second=}"
    name = "cascade.nets.0.heads.0.weight"
    assert not torch.equal(ours["state_dict"][name], ours["current_model_state"][name])
    assert ours["lr_schedulers"][0]["_last_lr"] == theirs["lr_schedulers"][0]["_last_lr"]
    for name in ("best", "last"):
        read(only_run(stopped) / f"checkpoints/{name}.ckpt")


def test_nobody_resumes_a_run_that_is_still_training_and_anybody_does_after_a_kill(tmp_path, refusal):
    process = forked(train, [*TINY, "trainer.max_steps=99999", "trainer.val_check_interval=2"], tmp_path)
    while process.is_alive() and not [*tmp_path.rglob("last.ckpt")]:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        last = only_run(tmp_path) / "checkpoints/last.ckpt"
        before = rows_logged(tmp_path), last.read_bytes()
        assert f"Another process trains in {only_run(tmp_path)}" in refusal(
            "train", ["ckpt_path=last", f"paths.runs={tmp_path / 'runs'}", "trainer.max_steps=1"], tmp_path
        ).replace("\n", "")
        assert (rows_logged(tmp_path), last.read_bytes()) == before
    finally:
        process.kill()
        process.join()
    assert (only_run(tmp_path) / ".training.lock").exists()
    finished(["ckpt_path=last", f"trainer.max_steps={read(last).step + 1}"], tmp_path)
    assert not (only_run(tmp_path) / ".training.lock").exists()


@pytest.fixture(scope="module")
def one_rank_killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A training on two ranks, of which one was killed at step 3: its folder, status and output."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "fatal.py").write_text(FATAL)
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *TINY, "trainer=ddp", "trainer.devices=2", "trainer.max_steps=5",
         "trainer.val_check_interval=2", "imports=[fatal]", "+callbacks.fatal._target_=fatal.KillRank"],
        cwd=folder, capture_output=True, text=True, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
    )  # fmt: skip
    return folder, done.returncode, done.stdout + done.stderr


@pytest.mark.long
def test_a_killed_rank_ends_the_training_with_a_word(one_rank_killed):
    folder, status, output = one_rank_killed
    assert status != 0
    assert "Traceback" not in output
    assert "Another process of this command ended" in output or status == -signal.SIGKILL, output
    assert read(only_run(folder) / "checkpoints/last.ckpt").step == 2


@pytest.mark.long
def test_all_ranks_share_one_folder_and_one_writes_it(one_rank_killed):
    folder, *_ = one_rank_killed
    run = only_run(folder)
    assert {path.name for path in run.iterdir()} >= {".hydra", "train.log", "metrics.csv", "checkpoints", "git.json"}
    assert not list(run.rglob("*ddp*"))
    assert pd.read_csv(run / "metrics.csv").dropna(subset=["train/loss"])["step"].tolist() == [0, 1, 2]


@pytest.mark.long
def test_it_goes_on_with_other_devices_and_says_what_is_not_as_before(one_rank_killed, monkeypatch):
    folder, *_ = one_rank_killed
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    output = finished(["ckpt_path=last", "imports=[fatal]", "trainer.devices=1"], folder)
    assert "trainer.devices: then 2, now 1" in output
    assert "with one device: training in one process" in output
    assert read(only_run(folder) / "checkpoints/last.ckpt").step == 5


@pytest.mark.long
def test_submitit_starts_the_ranks_of_a_job(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "hydra/launcher=submitit_local", "trainer=ddp",
         "hydra.launcher.tasks_per_node=2", "hydra.launcher.timeout_min=15", "trainer.max_steps=1",
         "trainer.val_check_interval=1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (path.parent for path in tmp_path.glob("multirun/*/*/*/config.yaml"))
    assert read(run / "checkpoints/last.ckpt").step == 1
    assert len(pd.read_csv(run / "pairs.csv")) == 2  # all pairs, not one rank's share of them
    assert (run / "summary.json").is_file()


MISTAKES = {
    "trainer.accelerator=gpu trainer.devices=99": "visible here",
    "trainer.devices=9999": "CPU cores",
    "cascade=mcr model=monai_voxelmorph": "choose cascade=cr",
    "n=0": "affine=learned",
    "-m trainer.devices=2": "trainer.devices=2 in a sweep",
    "optimizer.lr=auto": "optimizer.lr=auto: there is no search for a learning rate",
    "optimizer.lr=fast": "lr",
    "callbacks=[default,ema] callbacks.ema.decay=2.0": "callbacks.ema.decay=2",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=MISTAKES.keys())
def test_options_that_cannot_be_met_are_refused_before_any_work(arguments, tmp_path, refusal):
    words = arguments.split()
    given = [*words[: words[0] == "-m"], *TINY, *words[words[0] == "-m" :]]
    assert MISTAKES[arguments] in refusal("train", given, tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.long
def test_what_the_checkpoint_holds_is_not_changed_by_an_option(one_rank_killed, monkeypatch, in_process_train):
    folder, *_ = one_rank_killed
    monkeypatch.syspath_prepend(str(folder))
    same = ["ckpt_path=last", "imports=[fatal]", "trainer.devices=1"]
    status, output = in_process_train([*same, "optimizer.lr=0.5"], folder)
    assert status != 0
    assert "optimizer.lr: then 0.001, now 0.5" in output and "init=FILE" in output
    status, output = in_process_train([*same, "n=3"], folder)
    assert status != 0
    assert "n: then 1, now 3" in output
