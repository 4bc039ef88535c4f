"""Run folders, and what a config may have made."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from regcascade.cli import hydra_app
from regcascade.cli.failures import explained, resuming_training
from regcascade.cli.hydra_app import command, reason
from regcascade.cli.instantiate import _TARGETS_OF_0_1, built
from regcascade.cli.run_folder import config_of_resumed, job_folder, owner, resumed_checkpoint, run_folder
from regcascade.data.io.errors import VolumeError
from regcascade.training.module import NonFiniteLossError
from regcascade.utils.registry import import_user_modules


def made_run(folder: Path, when: int) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(b"")
    os.utime(checkpoint, (when, when))
    return checkpoint


def test_last_is_the_newest_checkpoint_and_its_run_goes_on_in_its_own_folder(tmp_path):
    made_run(tmp_path / "2026-01-02" / "10-00-00", when=2)
    newest = made_run(tmp_path / "2026-01-01" / "10-00-00", when=3)
    assert resumed_checkpoint(tmp_path, "last") == newest
    assert run_folder(str(tmp_path), "last") == str(owner(newest)) == str(newest.parents[1])


def test_a_new_run_never_gets_a_folder_that_is_there(tmp_path):
    first = Path(run_folder(str(tmp_path), None))
    first.mkdir(parents=True)
    second = Path(run_folder(str(tmp_path), None))
    assert second != first
    assert second.is_relative_to(tmp_path)


def test_nothing_to_resume(tmp_path):
    assert resumed_checkpoint(tmp_path, "last") is None
    assert resumed_checkpoint(tmp_path, str(tmp_path / "no.ckpt")) is None


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("loss.lambda1-0.5_n-3", "7_loss.lambda1-0.5_n-3"),
        ("cascade.stages-[vtn,voxelmorph]", "7_cascade.stages-vtn-voxelmorph"),
        ("data.root-/some where/a=b", "7_data.root-some-where-a-b"),
    ],
)
def test_a_job_folder_needs_no_quotes(overrides, name):
    assert job_folder(7, overrides) == name


def test_long_overrides_are_cut():
    assert len(job_folder(1, "x" * 1000)) <= 150


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "os.getcwd"},
        {"_target_": "regcascade.utils.registry.import_user_modules", "modules": ["evil.py"]},
        {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "setup": {"_target_": "os.getcwd"}},
        {"_target_": "regcascade.training.callbacks.checkpoints.Path.write_text", "_args_": ["harm"]},
        {"_target_": "regcascade.training.loggers.wandb_run.os.mkdir", "path": "harm"},
        {"_target_": "regcascade.training.callbacks.stop_reason.NoSuchCallback"},
        {"_target_": "lightning.pytorch.callbacks..x"},
        {"_target_": "lightning.pytorch.callbacks."},
        {"_target_": "lightning.pytorch.callbacks.Callback.setup.__globals__"},
        {"_target_": "regcascade.training.callbacks.stop_reason.StopReason", "_partial_": True},
        {"no_target": 1},
    ],
)
def test_a_config_can_make_loggers_and_callbacks_only(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must be one logger or callback"):
        built({"mine": config})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [b"n: [1", bytes(range(256)), b"n: !!python/object/apply:os.mkdir [harm]", b"- 1", b"", b"n: ${", b"n: ${oops}",
     b"n: 1\n", b"n: 1\ntrainer: 3\n"],
)  # fmt: skip
def test_a_stored_config_that_is_none_is_told_with_its_file(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_bytes(content)
    config = OmegaConf.create({"n": 1, "trainer": {"max_steps": 1}, "paths": {"run": "runs"}, "imports": []})
    with pytest.raises(ValueError, match=r"config\.yaml (cannot be read as|is not) the config of a run"):
        config_of_resumed(config, tmp_path / "checkpoints/last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_job_of_a_sweep_leaves_nothing_in_memory(monkeypatch):
    monkeypatch.setattr(hydra_app, "in_sweep", lambda: True)
    left = []

    def work(_: DictConfig) -> float:
        module, trainer = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        module.trainer, trainer.module = [trainer], [module]
        left.append(weakref.ref(module))
        return 0.5

    gc.disable()
    assert hydra_app.job(work, OmegaConf.create()) == 0.5 and left[0]() is None
    gc.enable()


def test_a_callback_that_is_null_is_left_out():
    stop = {"_target_": "regcascade.training.callbacks.stop_reason.StopReason"}
    assert [type(one).__name__ for one in built({"pictures": None, "stop_reason": stop})] == ["StopReason"]


def test_callbacks_of_the_modules_a_user_imports_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "my_callbacks.py").write_text("import lightning as L\n\n\nclass Mine(L.Callback):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"mine": {"_target_": "my_callbacks.Mine"}}
    with pytest.raises(ValueError, match="must be one logger or callback"):
        built(config)
    (made,) = built(config, imports=["my_callbacks"])
    assert type(made).__name__ == "Mine"


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize("rank", [0, 1])
def test_what_all_ranks_have_rank_0_says_and_no_rank_shows_where_in_the_code(rank, monkeypatch, capsys):
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    inherited = {}

    def main() -> None:
        inherited.update(os.environ)
        raise NonFiniteLossError("the loss is nan")

    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            command(main)
        assert end.value.code == 1
        assert ("Error: the loss is nan" in capsys.readouterr().err) == (rank == 0)
        assert inherited["HYDRA_FULL_ERROR"] == "1"
        for name in set(inherited) - set(os.environ):  # as the processes have it that Lightning starts
            monkeypatch.setenv(name, inherited[name])
    with pytest.raises(SystemExit):  # an error that one rank alone may have is never kept back
        command(raising(ValueError("scan_7 is damaged")))
    assert "Error: scan_7 is damaged" in capsys.readouterr().err


def test_a_users_own_wish_to_see_all_errors_holds_on_every_rank(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    for _ in range(2):
        with pytest.raises(NonFiniteLossError):
            command(raising(NonFiniteLossError("the loss is nan")))
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.parametrize("step", [None, 12])
def test_sigterm_is_told_with_its_status_and_with_what_there_is_to_go_on_from(step, tmp_path, capsys):
    if step is not None:
        torch.save({"global_step": step}, tmp_path / "last.ckpt")

    def main() -> None:
        with explained(0, lambda: resuming_training(tmp_path)):
            raise SIGTERMException

    with pytest.raises(SystemExit) as end:
        command(main)
    said = capsys.readouterr().err
    assert end.value.code == 143
    assert "Ended by SIGTERM." in said
    assert ("ckpt_path=last resumes at step 12" in said) == (step is not None)
    assert ("Nothing was saved yet" in said) == (step is None)


def test_a_full_disk_without_a_checkpoint_promises_none(tmp_path):
    message = r"No space left on device.*Nothing was saved yet"
    with pytest.raises(ValueError, match=message) as told, explained(0, lambda: resuming_training(tmp_path)):
        Path("/dev/full").write_text("x")
    assert "ckpt_path" not in str(told.value)


def test_callbacks_of_the_files_a_user_imports_can_be_made(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    mine, other = tmp_path / "a/mine.py", tmp_path / "b/mine.py"
    mine.write_text("import os\nimport lightning as L\n\n\nclass Mine(L.Callback):\n    pass\n")
    other.write_text("import lightning as L\n\n\nclass Mine(L.Callback):\n    other = True\n")
    import_user_modules([str(other), str(mine)])
    (made,) = built({"mine": {"_target_": "mine.Mine"}}, imports=[str(mine)])
    assert type(made).__name__ == "Mine" and not hasattr(made, "other")
    for target in ("mine.os.getcwd", "other.Mine", f"{mine}.Mine"):
        with pytest.raises(ValueError, match="must be one logger or callback"):
            built({"mine": {"_target_": target}}, imports=[str(mine)])


def test_a_job_of_a_sweep_goes_on_by_the_command_of_the_sweep(tmp_path):
    job = tmp_path / "0_n-1"
    for folder in ("checkpoints", ".hydra"):
        (job / folder).mkdir(parents=True)
    (tmp_path / "sweep.json").write_text("{}")
    (job / ".hydra/overrides.yaml").write_text("[]")
    torch.save({"global_step": 3}, job / "checkpoints/last.ckpt")
    assert resuming_training(job / "checkpoints").startswith("The command of the sweep resumes at step 3")


def test_the_callbacks_and_loggers_of_a_run_of_version_0_1_are_found(tmp_path):
    stored = {
        "picture": {"_target_": "regcascade.callbacks.PictureCallback"},
        "gradients": {"_target_": "regcascade.monitors.GradientNorm"},
        "ema": {"_target_": "regcascade.averaging.AveragedWeights", "decay": 0.9},
        "csv": {"_target_": "regcascade.report.loggers.MetricsFile", "save_dir": str(tmp_path)},
    }
    assert [type(one).__name__ for one in built(stored)] == [
        "PictureCallback", "GradientNorm", "AveragedWeights", "MetricsFile",
    ]  # fmt: skip
    assert all(get_object(today) is not None for today in _TARGETS_OF_0_1.values())


def test_an_overlong_name_of_a_file_and_a_scan_that_a_data_worker_cannot_read_are_told_in_one_line():
    with pytest.raises(OSError) as told:
        Path("n" * 5000).is_dir()
    assert reason(told.value) == f"{'n' * 80}... is too long to name a file."

    class Damaged(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> None:
            raise VolumeError("a.nii.gz is constant: Error: 0.")

    with pytest.raises(VolumeError) as caught:
        next(iter(torch.utils.data.DataLoader(Damaged(), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert reason(caught.value) == "a.nii.gz is constant: Error: 0."
