"""A checkpoint is on the disk whole, or the one of before is."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from forked import forked

from regcascade.training.callbacks.checkpoints import WholeCheckpoints


def test_a_disk_that_fills_keeps_the_checkpoint_of_before(tmp_path):
    path, io = tmp_path / "checkpoints" / "last.ckpt", WholeCheckpoints()
    io.save_checkpoint({"step": 1}, path)
    full = path.with_name(f".{path.name}.part")
    full.symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"last\.ckpt could not be written \(No space left on device\)\. What was"):
        io.save_checkpoint({"step": 2, "weights": torch.zeros(10**6)}, path)
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    full.symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"best\.ckpt could not be written") as told:
        path.with_name(".best.ckpt.part").symlink_to("/dev/full")
        io.save_checkpoint({"weights": torch.zeros(10**6)}, path.with_name("best.ckpt"))
    assert "kept" not in str(told.value)


@pytest.mark.parametrize("limit", [1000, 100_000, 1_000_000])
def test_a_disk_that_fills_while_torch_writes_is_told_as_such(tmp_path, limit):
    path, io = tmp_path / "last.ckpt", WholeCheckpoints()
    io.save_checkpoint({"step": 1}, path)
    weights = {str(number): torch.rand(10**5) for number in range(4)}

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(ValueError, match=r"last\.ckpt could not be written \(File too large\)\. What.*Make room"):
            io.save_checkpoint({"step": 2, "weights": weights}, path)

    process = forked(save)
    process.join()
    assert process.exitcode == 0
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_error_of_torch_that_no_disk_made_stays_what_it_is(tmp_path, monkeypatch):
    def broken(*arguments: object) -> None:
        raise RuntimeError("no such storage")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="no such storage"):
        WholeCheckpoints().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_kill_while_writing_keeps_the_checkpoint_of_before(tmp_path):
    path, io = tmp_path / "last.ckpt", WholeCheckpoints()
    io.save_checkpoint({"step": 1}, path)

    class Fatal:
        def __reduce__(self):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
            return dict, ()

    process = forked(io.save_checkpoint, {"step": 2, "weights": torch.zeros(10**6), "fatal": Fatal()}, path)
    process.join()
    assert process.exitcode == -9
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    assert sorted(file.name for file in Path(tmp_path).iterdir()) in (["last.ckpt"], [".last.ckpt.part", "last.ckpt"])
    io.save_checkpoint({"step": 3}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
