"""A checkpoint is on the disk whole, or the one of before is."""

from pathlib import Path

import pytest
import torch
from forked import forked

from regcascade.saving import WholeCheckpoints


def test_a_disk_that_fills_keeps_the_checkpoint_of_before(tmp_path):
    path, io = tmp_path / "checkpoints" / "last.ckpt", WholeCheckpoints()
    io.save_checkpoint({"step": 1}, path)
    full = path.with_name(f".{path.name}.part")
    full.symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"last\.ckpt could not be written \(No space left on device\)\. The one of"):
        io.save_checkpoint({"step": 2, "weights": torch.zeros(10**6)}, path)
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    full.symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"best\.ckpt could not be written") as told:
        path.with_name(".best.ckpt.part").symlink_to("/dev/full")
        io.save_checkpoint({"weights": torch.zeros(10**6)}, path.with_name("best.ckpt"))
    assert "kept" not in str(told.value)


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
