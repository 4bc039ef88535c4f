"""What launchers say of their processes, what all of them must agree on, and devices that are not there."""

import os
import time
from pathlib import Path

import pytest
import torch
from forked import forked, free_port

from regcascade.cli.failures import explained
from regcascade.cli.run_folder import run_folder
from regcascade.training.devices import DDP, devices_in_all, placed
from regcascade.utils import distributed as ranks
from regcascade.utils import launch
from regcascade.utils.launch import Launch, from_first_rank, is_first_starter, launched

LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SUBMITIT_LOCAL_NTASKS", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT")
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}
SUBMITIT = {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_JOB_ID": "77"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    launch._store.cache_clear()


def environment(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),
        ({**TORCHRUN, "RANK": "0"}, True),
        (TORCHRUN, False),
        (SLURM, False),
        (SUBMITIT, False),
        ({"NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, True),
        ({"NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, False),
    ],
)
def test_one_process_of_all_is_the_first_before_they_can_talk(variables, expected, monkeypatch):
    environment(monkeypatch, variables)
    assert is_first_starter() is expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", 4, 3, 2)),
        (SLURM, Launch("SLURM", 4, 2, 2)),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        ({**SLURM, "SLURM_JOB_NAME": "interactive"}, None),
        (SUBMITIT, Launch("submitit", 2, 1, 1)),
    ],
)
def test_what_started_the_processes(monkeypatch, variables, expected):
    environment(monkeypatch, variables)
    assert launched() == expected


@pytest.mark.parametrize("by_hand", [True, False])
def test_all_ranks_have_the_run_folder_of_the_first_and_then_one_process_group(monkeypatch, tmp_path, by_hand):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))

    def rank(number: int) -> None:
        os.environ |= {"NODE_RANK": str(number)} if by_hand else {**TORCHRUN, "RANK": str(number), "WORLD_SIZE": "2"}
        folder = run_folder(str(tmp_path / f"of_{number}"), None)
        torch.distributed.init_process_group("gloo", rank=number, world_size=2)  # on the same port
        (tmp_path / f"rank_{number}").write_text(f"{folder} {ranks.gathered(number)}")
        torch.distributed.destroy_process_group()

    for process in [forked(rank, 0), forked(rank, 1)]:
        process.join()
        assert process.exitcode == 0
    said = {(tmp_path / f"rank_{number}").read_text() for number in (0, 1)}
    assert len(said) == 1
    assert str(tmp_path / "of_0") in said.pop().removesuffix(" [0, 1]")


def test_without_a_launcher_there_is_nobody_to_ask():
    assert from_first_rank("anything", lambda: "mine") == "mine"


def test_options_follow_the_launcher(monkeypatch):
    options = {"accelerator": "cpu", "devices": "auto", "num_nodes": "auto", "strategy": "ddp"}
    alone = placed(options)
    assert (alone["num_nodes"], alone["strategy"], devices_in_all(alone)) == (1, "auto", 1)
    environment(monkeypatch, TORCHRUN)
    several = placed(options)
    assert (several["devices"], several["num_nodes"], several["strategy"]) == (2, 2, DDP)
    assert devices_in_all(several) == 4
    with pytest.raises(ValueError, match=r"torchrun started 4 processes.*trainer\.devices=2 trainer\.num_nodes=2"):
        placed({**options, "devices": 1, "num_nodes": 1})


@pytest.mark.parametrize(("devices", "count"), [(2, 2), ("2", 2), ([0, 1, 2], 3), ("0,1", 2), ("auto", 1), (-1, 1)])
def test_several_devices_mean_ddp_unless_another_strategy_is_named(devices, count, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    options = placed({"accelerator": "cpu", "devices": devices, "num_nodes": 1, "strategy": "auto"})
    assert devices_in_all(options) == count
    assert options["strategy"] == (DDP if count > 1 else "auto")
    named = placed({"accelerator": "cpu", "devices": devices, "num_nodes": 1, "strategy": "fsdp"})
    assert named["strategy"] == "fsdp"


@pytest.mark.parametrize(
    ("there", "options", "message"),
    [
        (1, {"devices": 8}, r"trainer\.devices=8: 1 GPU"),
        (2, {"devices": [0, 2], "accelerator": "gpu"}, r"trainer\.devices=\[0, 2\]: 2 GPU"),
        (0, {"devices": 8}, r"trainer\.devices=8 on a CPU: a process each, and there are 4 CPU cores"),
        (0, {"accelerator": "gpu"}, r"trainer\.accelerator=gpu: no GPU is visible"),
        (0, {"devices": 0}, r"trainer\.devices=0"),
        (0, {"num_nodes": "many"}, r"trainer\.num_nodes=many"),
        (0, {"num_nodes": 2}, r"trainer\.num_nodes=2, and no launcher.*srun --nodes 2.*torchrun --nnodes 2"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, there, options, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with pytest.raises(ValueError, match=message):
        placed({"accelerator": "auto", "devices": 1, "num_nodes": 1, **options})


def test_submitit_tasks_are_made_known_to_lightning(monkeypatch):
    environment(monkeypatch, {**SUBMITIT, "SUBMITIT_LOCAL_LOCALID": "1"})
    before = dict(os.environ)
    options = placed({"accelerator": "cpu", "devices": "auto", "num_nodes": 1, "strategy": "ddp"})
    added = {name: value for name, value in os.environ.items() if name not in before}
    for name in added:
        del os.environ[name]  # monkeypatch would put them back at the end
    assert options["devices"] == 2
    assert added.items() >= {"LOCAL_RANK": "1", "NODE_RANK": "0", "MASTER_PORT": "20077"}.items()


def test_a_rank_ends_with_the_process_that_started_it(tmp_path):
    said = tmp_path / "pid"

    def wait() -> None:
        launch.follow_parent()
        said.write_text(str(os.getpid()))
        time.sleep(60)

    starter = forked(lambda: forked(wait).join())
    while not (said.is_file() and said.read_text()):
        time.sleep(0.02)
    starter.kill()
    starter.join()
    status = Path(f"/proc/{said.read_text()}/stat")
    end = time.monotonic() + 30
    while status.is_file() and status.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", r"=3\) was killed \(Killed\).*memory.*Go on so\."),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", r"data\.num_workers=3\) was killed\..*memory"),
        ("[gloo/pair.cc:544] Connection closed by peer [127.0.0.1]:3", "Another process of this command ended"),
    ],
)  # fmt: skip
def test_what_ends_a_training_from_outside_is_said(error, message):
    with pytest.raises(ValueError, match=message), explained(3, lambda: "Go on so."):
        raise RuntimeError(error)


def test_any_other_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"), explained(3, lambda: "Go on so."):
        raise RuntimeError("shapes differ")
