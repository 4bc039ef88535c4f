"""The figures of run folders: which checkpoint, which scans, which files."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.image import imread
from phantom_runs import DATA, failed, write_checkpoint, write_run, write_stages

from regcascade.cascades.checkpoint import read
from regcascade.cli.main import main
from regcascade.report.figures.run_figures import extreme_pairs, file_name
from regcascade.report.runs.reload import again, data_of, find_checkpoint, setting_of


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run")


def test_the_command_writes_charts_and_pages_of_the_worst_and_best_pairs(run, tmp_path, capsys):
    out = tmp_path / "out"
    main(["figures", str(run), "--out", str(out), "--worst", "1"])
    worst, best = "worst_1_phantom_0000_phantom_0001.png", "best_1_phantom_0002_phantom_0001.png"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["labels.png", "initial.png", "cases.png", worst, best]
    )
    assert imread(out / worst).shape[1] == pytest.approx(180 / 25.4 * 200, abs=1)
    said = capsys.readouterr().out
    assert worst in said
    assert "Left out" not in said


def test_several_runs_are_drawn_together_with_named_pairs_of_each(run, tmp_path, capsys):
    other = write_run(tmp_path / "n2", n=2, gain=0.2)
    baseline = write_run(tmp_path / "baseline", checkpoint=False)
    out = tmp_path / "out"
    names = ["--names", "one stage", "two", "affine"]
    pair = ["--pair", "phantom_0001", "phantom_0004"]  # not among the evaluated ones
    main(["figures", str(run), str(other), str(baseline), "--out", str(out), *names, *pair])
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "cascades.png",
        "cases.png",
        "initial.png",
        "labels.png",
        "one-stage/pair_phantom_0001_phantom_0004.png",
        "pair_phantom_0001_phantom_0004.png",
        "two/pair_phantom_0001_phantom_0004.png",
    ]
    assert "Left out" in capsys.readouterr().out


def test_worst_is_numbered_from_the_worst_and_best_from_the_best():
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("c", "a")]
    table = pd.DataFrame({"dice_mean": [0.3, 0.1, 0.2, 0.4]}, index=pd.MultiIndex.from_tuples(pairs))
    assert extreme_pairs({"run": table}, 2) == [
        ("worst_1", ("a", "c")),
        ("worst_2", ("b", "c")),
        ("best_1", ("c", "a")),
        ("best_2", ("a", "b")),
    ]


def test_a_moved_run_folder_still_has_its_checkpoint_and_another_can_be_given(run, tmp_path):
    moved = run.rename(tmp_path / "moved")
    assert find_checkpoint(moved) == moved / "checkpoints/best.ckpt"
    other = write_checkpoint(tmp_path / "other.ckpt")
    assert find_checkpoint(moved, other) == other
    with pytest.raises(ValueError, match=r"--checkpoint .*nowhere: there is no such file"):
        find_checkpoint(moved, tmp_path / "nowhere")


def test_a_checkpoint_that_changed_since_is_refused(run):
    write_checkpoint(run / "checkpoints/best.ckpt", n=2)
    with pytest.raises(ValueError, match=r"not what .* evaluated"):
        find_checkpoint(run)


@pytest.mark.parametrize(
    ("chosen", "scans"),
    [({"name": "trained", "root": "as_trained", "validation": 4}, 6), ({**DATA, "train": 7}, 10), (None, 5)],
)
def test_the_scans_are_those_of_the_evaluation(run, chosen, scans):
    if chosen is not None:
        (run / "config.yaml").write_text(yaml.safe_dump({"data": chosen}))
    data = data_of(run, read(find_checkpoint(run)))
    assert len(data.cases.names) == scans


def test_errors_name_what_is_wrong_and_what_to_do(run, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    (tmp_path / "empty").mkdir()
    assert "empty is no evaluated run" in failed(["figures", str(tmp_path / "empty"), *out], capsys)
    assert "There is no" in failed(["figures", str(tmp_path / "nowhere"), *out], capsys)
    unknown = failed(["figures", str(run), *out, "--pair", "phantom_0000", "phantom_9999"], capsys)
    assert "no scan 'phantom_9999' in the data set of" in unknown
    assert "must be 0 or more" in failed(["figures", str(run), *out, "--worst", "-1"], capsys)
    baseline = str(write_run(tmp_path / "baseline", checkpoint=False))
    assert "names no checkpoint" in failed(["figures", baseline, *out], capsys)
    assert "--worst 0" in failed(["figures", baseline, *out], capsys)
    (tmp_path / "file").touch()
    assert "file is a file" in failed(["figures", str(run), "--out", str(tmp_path / "file")], capsys)
    several = failed(["figures", str(run), baseline, *out, "--checkpoint", str(run)], capsys)
    assert "--checkpoint is of one run, and these are 2" in several
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_checkpoint_has_its_charts(tmp_path):
    baseline = write_run(tmp_path / "baseline", checkpoint=False)
    main(["figures", str(baseline), "--out", str(tmp_path / "out"), "--worst", "0"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cases.png", "initial.png", "labels.png"]


def test_a_run_that_does_not_say_how_it_registered_cannot_be_drawn_again(run):
    (run / "summary.json").write_text('{"pairs": 1, "measures": {}}')
    with pytest.raises(ValueError, match="does not say n, r and repeat"):
        setting_of(run)
    with pytest.raises(ValueError, match="does not say n, r and repeat"):
        again(run)


def test_names_of_files_need_no_quotes():
    assert file_name("worst_1", "a b/c", "sub=1,2.nii") == "worst_1_a-b-c_sub-1-2.nii"


@pytest.mark.parametrize("named_by", ["data", "checkpoint"])
def test_another_method_registers_its_pairs_again(run, tmp_path, named_by):
    baseline = write_run(tmp_path / "affine", checkpoint=False)
    summary = json.loads((baseline / "summary.json").read_text())
    for key in ("n", "r", "repeat", "parameters", "paper_size_mib"):
        del summary[key]
    (baseline / "summary.json").write_text(json.dumps(summary | {"method": {"name": "affine"}}))
    checkpoint = str(run / "checkpoints/best.ckpt")
    config = {"data": DATA} if named_by == "data" else {"data": {"name": "trained"}, "checkpoint": checkpoint}
    (baseline / "config.yaml").write_text(yaml.safe_dump(config))
    main(["figures", str(baseline), "--out", str(tmp_path / "out"), "--worst", "1"])
    pages = sorted(path.name for path in (tmp_path / "out").glob("*_phantom*"))
    assert [name.split("_")[0] for name in pages] == ["best", "worst"]


def test_methods_that_cannot_run_again_are_told(tmp_path, capsys):
    baseline = write_run(tmp_path / "gone", checkpoint=False)
    summary = json.loads((baseline / "summary.json").read_text())
    for spec, said in (({"name": "gone"}, "gone"), ({"name": "identity"}, "does not say which scans")):
        (baseline / "summary.json").write_text(json.dumps(summary | {"method": spec}))
        assert said in failed(["figures", str(baseline), "--out", str(tmp_path / "out")], capsys)


def test_stages_are_drawn_of_the_runs_that_have_them(run, tmp_path):
    other = write_run(tmp_path / "other")
    write_stages(run, 2)
    main(["figures", str(run), str(other), "--out", str(tmp_path / "out"), "--worst", "0"])
    assert (tmp_path / "out/stages.png").is_file()


def test_damaged_stages_are_named(run, tmp_path, capsys):
    (run / "stages.csv").write_text("fixed,moving,dice_mean\na,b,0.5\n")
    assert "stages.csv is damaged" in failed(
        ["figures", str(run), "--out", str(tmp_path / "o"), "--worst", "0"], capsys
    )
