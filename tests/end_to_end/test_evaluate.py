"""`evaluate.py` itself: several r, stages, going on after a kill, and what a user gets wrong."""

import json
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from short_runs import ON_ONE_CORE, PHANTOM, steps

TINY = [*PHANTOM, *ON_ONE_CORE, *steps(1), "n=2"]


@pytest.fixture
def checkpoint(tmp_path, in_process) -> Path:
    status, output = in_process("train", [*TINY, "cascade=cr"], tmp_path)
    assert status == 0, output
    (path,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    return path


def test_evaluating_one_checkpoint_in_many_ways(checkpoint, tmp_path, in_process, refusal):
    """One training for all of it, as training takes longer than the rest."""

    given = [f"checkpoint={checkpoint}", "accelerator=cpu"]

    def evaluated(*arguments: str) -> tuple[int, str]:
        return in_process("evaluate", [*given, *arguments], tmp_path)

    folder = tmp_path / "several"
    status, output = evaluated(f"paths.run={folder}", "r=[1,2]", "stages=true", "labels=linear", "metrics=learn2reg")
    assert status == 0, output
    assert "r=1" in output and "r=2" in output and "Learn2Reg: Dice" in output and "Surface distance" in output
    assert sorted(path.name for path in folder.iterdir()) == ["r1", "r2"]
    for r in (1, 2):
        summary = json.loads((folder / f"r{r}/summary.json").read_text())
        assert (summary["r"], summary["pairs"], summary["label_interpolation"]) == (r, 2, "linear")
        stages = pd.read_csv(folder / f"r{r}/stages.csv")
        assert len(stages) == 2 * (1 + 2 * r)
        assert (folder / f"r{r}/config.yaml").is_file()

    pairs = folder / "r2/pairs.csv"
    before = pairs.read_text()
    pairs.write_text(before[:-40])
    (folder / "r2/summary.json").unlink()
    status, output = evaluated(f"paths.run={folder}", "r=[1,2]", "stages=true", "labels=linear", "metrics=learn2reg")
    assert status == 0, output
    again, whole = pairs.read_text().splitlines(), before.splitlines()
    assert again[:2] == whole[:2] and len(again) == 3  # the first pair was not done again
    assert (folder / "r2/summary.json").is_file()

    _check_other_methods(evaluated, folder, tmp_path)

    config = (folder / "r2/config.yaml").read_text()
    for arguments, said in {
        (f"paths.run={folder / 'r2'}", "r=2"): "labels was",
        (f"paths.run={folder}", "r=[1,2]"): "stages was true and is false",
        (f"paths.run={checkpoint.parents[1]}",): "evaluation.json",
        ("r=[1,1]",): "r=[1, 1]",
        ("r=[]",): "r=[]",
        ("r=[1,two]",): "r=[1, 'two']",
        ("r=0",): "r=0",
        ("labels=cubic",): "linear",
        ("metrics=learn2rag",): "learn2reg",
        ("stages=3",): "stages",
        ("method=identity", "r=2"): "method=identity applies no networks",
        ("method=identity", "stages=true"): "stages=true",
        ("method=identity", "data=phantom"): "would not be used",
        ("method=identity", "accelerator=gpu"): "CPU only",
    }.items():
        assert said in refusal("evaluate", [*given, *arguments], tmp_path)
    assert (folder / "r2/config.yaml").read_text() == config


def test_other_scans_are_preprocessed_as_the_checkpoint_says_unless_the_command_line_does(
    checkpoint, tmp_path, in_process
):
    given = [f"checkpoint={checkpoint}", "data=phantom", "data.validation=2", "accelerator=cpu"]
    for more, size in (([], [16, 18, 20]), (["data.size=[16,16,16]"], [16, 16, 16])):
        folder = tmp_path / str(len(more))
        status, output = in_process("evaluate", [*given, *more, f"paths.run={folder}"], tmp_path)
        assert status == 0, output
        assert ("Taken from last.ckpt: data.size=[16,18,20]." in output) == (not more)
        assert OmegaConf.load(folder / "config.yaml").data.size == size
    jobs = ["-m", *given, "data.train=-1,-2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    status, output = in_process("evaluate", jobs, tmp_path)
    told = [line for line in output.splitlines() if "Error" in line]
    assert status == 1 and [line[:21] for line in told] == ["Error: Job #0: data.t", "Error: Job #1: data.t"]


def _check_other_methods(evaluated, folder: Path, tmp_path: Path) -> None:
    """Another method in the checkpoint's place is evaluated on the very same pairs."""
    other = tmp_path / "affine"
    status, output = evaluated(f"paths.run={other}", "method=affine", "labels=linear")
    assert status == 0, output
    ours, theirs = (pd.read_csv(path / "pairs.csv") for path in (folder / "r1", other))
    for column in ("fixed", "moving", "dice_mean_before"):
        assert theirs[column].tolist() == ours[column].tolist()
    summary = json.loads((other / "summary.json").read_text())
    assert (summary["method"], summary["checkpoint"], summary["failures"]) == ({"name": "affine"}, None, 0)
    status, output = evaluated(f"paths.run={other}", "labels=linear")
    assert status != 0 and "checkpoint_sha256 was null" in output, output


def test_methods_without_a_checkpoint(tmp_path, in_process, refusal):
    data = ["data=phantom", "data.size=[16,18,20]", "data.validation=3", "data.validation_pairs=2"]
    status, output = in_process("evaluate", [*data, "method=identity", f"paths.run={tmp_path / 'a'}"], tmp_path)
    assert status == 0, output
    pairs = pd.read_csv(tmp_path / "a/pairs.csv")
    assert pairs["dice_mean"].tolist() == pytest.approx(pairs["dice_mean_before"].tolist())
    for arguments, said in {
        tuple(data): "checkpoint is missing: give it as checkpoint=FILE",
        ("method=identity",): "No scans are named: give data=",
        ("method=identiti", *data): "identiti",
        ("method=identity", "checkpoint=nowhere.ckpt"): "There is no checkpoint nowhere.ckpt",
    }.items():
        assert said in refusal("evaluate", list(arguments), tmp_path)
