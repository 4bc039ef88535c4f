"""Several processes on one table of pairs, and a process that is killed in the middle of one."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from forked import forked

from regcascade.cli.main import main
from regcascade.data.io.itk_images import read_scan
from regcascade.utils.files import claimed

pytestmark = pytest.mark.usefixtures("no_picture")
PATIENCE = 600  # seconds: only a hang takes as long, whatever else the machine does


@pytest.fixture
def arguments(phantoms, checkpoint, tmp_path):
    """A command for three pairs into `out`."""
    row = f"{phantoms / 'fixed.nii.gz'},{phantoms / 'moving.nii.gz'}"
    lines = ["name,fixed,moving", *(f"{name},{row}" for name in "abc")]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs, out = str(tmp_path / "pairs.csv"), str(tmp_path / "out")
    return ["register", "--pairs", pairs, "--checkpoint", str(checkpoint), "--out", out, "--device", "cpu"]


def check_whole(folder: Path) -> None:
    """Everything that a report lists is there and can be read."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for name in report["files"]:
        assert (folder / name).stat().st_size > 0
    for name in ("moved.nii.gz", "jacobian.nii.gz"):
        read_scan(folder / name)


def register_alone(arguments: list[str]) -> None:
    torch.set_num_threads(1)  # a forked process has none of the threads that OpenMP believes in
    main(arguments)


def test_a_pair_that_another_process_is_at_is_left_to_it(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out/b") as mine:
        assert mine
        main(arguments)
    said = capsys.readouterr().out
    assert "b: another process is at it." in said and "1 of 3 pairs are another process's" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c"]
    main(arguments)
    assert capsys.readouterr().out.count("done before") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "c"]


def test_a_folder_that_another_process_writes_is_refused(phantoms, checkpoint, tmp_path, capsys):
    scans = [str(phantoms / f"{role}.nii.gz") for role in ("fixed", "moving")]
    with claimed(tmp_path / "result"), pytest.raises(SystemExit):
        main(["register", *scans, "--checkpoint", str(checkpoint), "--out", str(tmp_path / "result")])
    assert "another process is registering into it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_after_a_kill_nothing_half_written_looks_whole_and_what_is_done_is_not_done_again(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    process = forked(register_alone, arguments)
    until = time.monotonic() + PATIENCE
    # In the second pair, once its files begin to be written.
    while not (out / ".b.part/moved.nii.gz").exists() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    there = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert there in (["a"], ["a", "b"])  # a slow observer may see the second done
    for name in there:
        check_whole(out / name)
    stamps = {name: (out / name / "report.json").stat().st_mtime_ns for name in there}
    main(arguments)
    assert capsys.readouterr().out.count("done before") == len(there)
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]  # and nothing hidden
    for name in "abc":
        check_whole(out / name)
    assert stamps == {name: (out / name / "report.json").stat().st_mtime_ns for name in there}
