"""The real commands on tiny phantoms: train, stop, resume, evaluate, and what a user gets wrong."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from short_runs import ON_ONE_CORE, PHANTOM, steps

import regcascade
from regcascade.cascades.checkpoint import CheckpointError, read

ROOT = Path(__file__).parents[2]
TINY = [*PHANTOM, *ON_ONE_CORE, *steps(2)]


def command(script: str, *arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def only_run(folder: Path) -> Path:
    (run,) = (path.parent for path in (folder / "runs").glob("*/*/config.yaml"))
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `train.py` has run once, with an affine stage."""
    folder = tmp_path_factory.mktemp("trained")
    done = command("train.py", *TINY, "n=1", "affine=learned", cwd=folder)
    said = done.stdout + done.stderr
    assert "max_steps=2 reached" in said
    assert said.count("GPU available") == 1 and "Tip:" not in said  # once, and no hints at other products
    assert "Dice" in done.stdout
    assert "before" in done.stdout
    return folder


@pytest.fixture
def train(in_process_train) -> Callable[[list[str], Path], None]:
    """A training that must end well, without a process of its own."""

    def run(arguments: list[str], folder: Path) -> None:
        status, output = in_process_train(arguments, folder)
        assert status == 0, output

    return run


def test_a_run_folder_holds_what_is_promised(trained):
    run = only_run(trained)
    assert {"config.yaml", "metrics.csv", "git.json", "pairs.csv", "summary.json", "checkpoints"} <= {
        path.name for path in run.iterdir()
    }
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(list((run / "pictures").glob("*.png"))) == 1
    metrics = pd.read_csv(run / "metrics.csv")
    logged = {
        "train/loss",
        "train/similarity",
        "train/similarity_half",
        "train/similarity_quarter",
        "train/edge",
    }
    logged |= {"train/smoothness", "train/affine_det", "train/affine_ortho", "val/dice", "val/loss"}
    assert logged <= set(metrics.columns)
    assert metrics["train/loss"].notna().sum() == 2


def test_the_logged_loss_is_the_weighted_sum_of_the_logged_terms(trained):
    row = pd.read_csv(only_run(trained) / "metrics.csv").dropna(subset=["train/loss"]).iloc[0]
    weights = {
        "similarity": 1, "similarity_half": 0.5, "similarity_quarter": 0.25, "edge": 1,
        "smoothness": 1, "smoothness_half": 0.5, "smoothness_quarter": 0.25, "affine_det": 0.1, "affine_ortho": 0.1,
    }  # fmt: skip
    assert row["train/loss"] == pytest.approx(sum(w * row[f"train/{name}"] for name, w in weights.items()), rel=1e-5)


def test_a_summary_is_the_mean_of_its_pairs(trained):
    run = only_run(trained)
    pairs, summary = pd.read_csv(run / "pairs.csv"), json.loads((run / "summary.json").read_text())
    assert len(pairs) == summary["pairs"] == 2
    for measure in ("dice_mean", "dice_liver", "cc", "hd95_mm", "landmark_distance_mm", "dice_mean_before"):
        assert summary["measures"][measure]["mean"] == pytest.approx(pairs[measure].mean())
    assert summary["paper_size_mib"] == pytest.approx(3 * summary["weights_mib"], rel=1e-3)
    assert summary["parameters"] == sum(p.numel() for p in regcascade.load(run / "checkpoints/best.ckpt").parameters())


def test_evaluating_the_best_checkpoint_gives_what_training_printed(trained, tmp_path):
    run = only_run(trained)
    command("evaluate.py", f"checkpoint={run / 'checkpoints/best.ckpt'}", cwd=tmp_path)
    (again,) = (tmp_path / "evaluations").glob("*/*/pairs.csv")
    ours, theirs = pd.read_csv(run / "pairs.csv"), pd.read_csv(again)
    pd.testing.assert_frame_equal(ours.drop(columns="seconds"), theirs.drop(columns="seconds"))


def test_all_pairs_of_the_trained_set_can_be_asked_for(trained, tmp_path, in_process):
    checkpoint = only_run(trained) / "checkpoints/best.ckpt"
    status, output = in_process("evaluate", [f"checkpoint={checkpoint}", "data.validation_pairs=null"], tmp_path)
    assert status == 0, output
    (rows,) = (tmp_path / "evaluations").glob("*/*/pairs.csv")
    assert len(pd.read_csv(rows)) == 6  # of three scans


def test_evaluating_listed_pairs_with_repeats(trained, tmp_path, in_process):
    names = read(only_run(trained) / "checkpoints/best.ckpt").description["data"]
    assert names["name"] == "phantom"
    (tmp_path / "pairs.csv").write_text("fixed,moving\nphantom_0000,phantom_0001\nphantom_0001,phantom_0000\n")
    checkpoint = only_run(trained) / "checkpoints/last.ckpt"
    arguments = [f"checkpoint={checkpoint}", "data.pairs=pairs.csv", "r=2", "repeat=chain"]
    status, output = in_process("evaluate", arguments, tmp_path)
    assert status == 0, output
    (rows,) = (tmp_path / "evaluations").glob("*/*/pairs.csv")
    assert pd.read_csv(rows)[["fixed", "moving"]].to_numpy().tolist() == [
        ["phantom_0000", "phantom_0001"], ["phantom_0001", "phantom_0000"],
    ]  # fmt: skip


def test_a_stopped_run_goes_on_in_its_own_folder_and_ends_where_an_uninterrupted_one_does(tmp_path, train):
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    same = [*TINY, "cascade=cr", "optimizer.schedule=constant", "data.augmentation=bspline"]
    stopped.mkdir()
    straight.mkdir()
    train(same, stopped)
    train(["ckpt_path=last", "trainer.max_steps=4"], stopped)
    train([*same, "trainer.max_steps=4"], straight)
    resumed, whole = only_run(stopped), only_run(straight)
    assert pd.read_csv(resumed / "metrics.csv")["train/loss"].count() == 4
    ours, theirs = read(resumed / "checkpoints/last.ckpt"), read(whole / "checkpoints/last.ckpt")
    assert ours.step == theirs.step == 4
    for name, weight in ours.weights.items():
        assert torch.equal(weight, theirs.weights[name]), name


def test_an_affine_network_trained_alone_is_frozen_under_a_cascade(tmp_path, train):
    alone = tmp_path / "alone"
    alone.mkdir()
    train([*TINY, "experiment=affine"], alone)
    checkpoint = only_run(alone) / "checkpoints/last.ckpt"
    assert read(checkpoint).description["n"] == 0
    train([*TINY, "affine=frozen", f"affine.checkpoint={checkpoint}"], tmp_path)
    before, after = read(checkpoint).weights, read(only_run(tmp_path) / "checkpoints/last.ckpt").weights
    affine = [name for name in before if name.startswith("affine.")]
    assert affine
    assert all(torch.equal(before[name], after[name]) for name in affine)


def test_init_starts_from_given_weights(trained, tmp_path, train):
    best = only_run(trained) / "checkpoints/best.ckpt"
    train([*TINY, "n=1", "affine=learned", f"init={best}", "optimizer.lr=1e-12"], tmp_path)
    ours, theirs = read(only_run(tmp_path) / "checkpoints/last.ckpt").weights, read(best).weights
    assert all(torch.allclose(weight, theirs[name], atol=1e-9) for name, weight in ours.items())


def test_a_sweep_gives_each_job_a_folder_with_its_overrides_in_the_name(tmp_path, train):
    train(["-m", *TINY, "loss.lambda1=0.5,1.0"], tmp_path)
    folders = sorted(path.parent.name for path in (tmp_path / "multirun").glob("*/*/*/config.yaml"))
    assert len(folders) == 2
    assert "lambda1-0.5" in folders[0]
    assert "lambda1-1.0" in folders[1]
    assert not any(character in name for name in folders for character in "=, []")


def test_unlabelled_scans_train_by_their_loss(tmp_path, train):
    nib = pytest.importorskip("nibabel")
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "imagesTr").mkdir()
    names = [f"imagesTr/scan_{k}.nii.gz" for k in range(5)]
    for name in names:
        volume = torch.rand(16, 17, 18, generator=generator).numpy()
        nib.save(nib.Nifti1Image(volume, torch.diag(torch.tensor([1.0, 2, 3, 1])).numpy()), tmp_path / name)
    description = {"training": [{"image": name} for name in names], "labels": {"0": "background"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    small = [setting for setting in TINY if not setting.startswith(("data.train", "data.validation="))]
    arguments = ["data=msd", f"data.root={tmp_path}", *small, "data.size=[16,16,16]", "data.validation=2"]
    train(arguments, tmp_path)
    summary = json.loads((only_run(tmp_path) / "summary.json").read_text())
    assert math.isfinite(summary["measures"]["cc"]["mean"])
    assert summary["measures"]["hd95_mm"]["mean"] is None


MISTAKES = {
    "model=voxelmorf": "voxelmorph",
    "model.name=voxelmorf": "voxelmorph",
    "+model.witdh=2": "width_multiplier",
    "model.witdh=2": "width_multiplier",
    "loss.lamda1=2": "Did you mean 'lambda1'",
    "mdoel=vtn": "mdoel",
    "cascade.stages=vtn": "[vtn]",
    "r=0": "r=0",
    "repeat=chian": "chain",
    "optimizer.warmup_steps=-1": "warmup_steps",
    "optimizer.halve_at=[5]": "halve_at",
    "+trainer.logger=false": "trainer",
    "callbacks.pictures.every_n_validations=0": "every_n_validations",
    "n=0": "affine",
    "n=-1": "n=-1",
    "cascade=cr loss=mil": "loss.alpha",
    "loss.similarity=nc": "lncc",
    "loss.smoothness=-1.0": "smoothness",
    "loss.lambda1=much": "lambda1",
    "trainer.max_steps=many": "max_steps",
    "trainer.max_steps=0": "trainer.max_steps=0",
    "trainer.max_steps=-2": "trainer.max_steps=-2",
    "trainer.max_epochs=0": "trainer.max_epochs=0",
    "trainer.val_check_interval=0": "trainer.val_check_interval=0",
    "trainer.val_check_interval=1.5": "trainer.val_check_interval=1.5",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches=0",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val=-1",
    "+trainer.max_stepps=3": "max_steps",
    "trainer.accelerator=abacus": "abacus",
    "optimizer.schedule=cosin": "cosine",
    "optimizer.lr=0.0": "optimizer.lr",
    "cascade.stages=[vtn,voxelmorph] n=3": "cascade.stages",
    "data=msd": "data.root",
    "data=msd data.root=nowhere": "nowhere",
    "data.size=[8,8,8]": "give three sides of 16 or more",
    "data.validation=1 data.validation_pairs=null": "data.validation",
    "data.pairs=nothing.csv": "nothing.csv",
    "ckpt_path=last": "ckpt_path=last",
    "init=nothing.ckpt": "nothing.ckpt",
    "affine=frozen": "affine.checkpoint",
    "paths.runs=/dev/null": "The folder /dev/null/",
    "paths.runs=/proc/nowhere": "The folder /proc/nowhere cannot be made",
    "n=null callbacks=null": "callbacks=null: a group",
    "logger=null": "logger=null: a group",
    "imports=[no_such_module]": "no_such_module",
    "+callbacks.mine._target_=os.getcwd": "os.getcwd",
    "+callbacks.pictures.foo=1": "unexpected keyword argument 'foo'",
    "+lambda1=1": "There is no option lambda1. Known:",
    "+foo.bar=1": "There is no option foo.",
    "+paths.rnu=1": "There is no option paths.rnu. Known: run, runs. Did you mean",
    "+experiment.foo=1": "There is no option experiment.",
    "+hydra.foo=1": "There is no option hydra.foo.",
    "+affine.foo=1": "affine=none has no option 'foo'",
    "~seed": "seed is missing: leave ~seed out",
    "init=a=b.ckpt": """'init="a=b.ckpt"'""",
    "file.ckpt": "file.ckpt is no KEY=VALUE",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=MISTAKES.keys())
def test_a_mistake_ends_with_one_clear_error_before_training(arguments, tmp_path, refusal):
    output = refusal("train", [*TINY, *arguments.split()], tmp_path)
    assert MISTAKES[arguments] in output and output.count("Error: ") == 1 and "Error executing" not in output


def test_foreign_truncated_and_hostile_checkpoints_are_refused(trained, tmp_path):
    whole = (only_run(trained) / "checkpoints/best.ckpt").read_bytes()
    (tmp_path / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save(_Hostile(tmp_path / "harm"), tmp_path / "hostile.ckpt")
    for name in ("truncated", "text", "foreign", "hostile", "missing"):
        with pytest.raises(CheckpointError, match=name):
            regcascade.load(tmp_path / f"{name}.ckpt")
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path, refusal):
    best = only_run(trained) / "checkpoints/best.ckpt"
    assert "another model" in refusal("train", [*TINY, "cascade=cr", f"init={best}"], tmp_path)


def test_a_resume_that_cannot_go_on_leaves_the_run_as_it_was(trained, tmp_path, refusal):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    run = only_run(tmp_path)
    last, config = run / "checkpoints/last.ckpt", (run / "config.yaml").read_text()
    for arguments, word in {
        ("n=2",): "another model",
        ("model=vtn",): "model=vtn",
        ("experiment=affine",): "experiment=affine",
        ("cascade.stages=[vtn]",): "another model",
        ("cascade.integrate=3", "trainer.max_steps=4"): "cascade.integrate: then 0, now 3",
        ("optimizer.lr=0.5",): "optimizer.lr: then 0.001, now 0.5",
        ("trainer.accumulate_grad_batches=0",): "trainer.accumulate_grad_batches=0",
    }.items():
        output = refusal("train", ["ckpt_path=last", *arguments], tmp_path)
        assert word in output
        assert "Resumed with another" not in output
        assert (run / "config.yaml").read_text() == config
    last.write_bytes(last.read_bytes()[:1000])
    assert "truncated" in refusal("train", ["ckpt_path=last"], tmp_path)


def test_a_copied_checkpoint_goes_on_as_what_it_is_and_as_nothing_else(trained, tmp_path, refusal, in_process_train):
    shutil.copy(only_run(trained) / "checkpoints/last.ckpt", tmp_path / "copied.ckpt")
    same = [*TINY, "n=1", "affine=learned", "ckpt_path=copied.ckpt", "trainer.max_steps=3"]
    output = refusal("train", [*same, "optimizer.lr=0.5", "optimizer.head_lr=3.0"], tmp_path)
    assert "optimizer.lr: then 0.001, now 0.5; optimizer.head_lr: then 10.0, now 3.0" in output
    assert "cascade.integrate: then 0, now 3" in refusal("train", [*same, "cascade.integrate=3"], tmp_path)
    weights = regcascade.cascades.checkpoint.PRETRAINED / "hippocampus.ckpt"
    output = refusal("train", [*TINY, f"ckpt_path={weights}"], tmp_path)
    assert f"init={weights}" in output and "Resumed with another" not in output
    assert not [*tmp_path.rglob("git.json")]  # which is written with the config
    status, output = in_process_train([*same, "data.seed=5"], tmp_path)
    assert status == 0, output
    assert "Resumed with another data.seed: then 0, now 5" in output


class _Hostile:
    """Unpickling it would create a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
