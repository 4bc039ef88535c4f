"""Runs are named by what they are, in tables, figures and pages."""

import json
from pathlib import Path

import pytest
import yaml
from phantom_runs import write_run

from regcascade.cli.main import main
from regcascade.report.runs.names import what_is, what_was_evaluated
from regcascade.report.runs.run import read_runs

TRAINED = {"model": {"name": "voxelmorph"}, "cascade": {"name": "cr"}, "n": 2, "loss": {"lambda1": 1.0}, "seed": 0}


def evaluated(folder: Path, r: int = 1, **trained) -> Path:
    """A run folder whose summary says what was trained."""
    write_run(folder, n=2, r=r, checkpoint=False)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"trained": TRAINED | {"steps": 100} | trained}))
    return folder


def named(*folders: Path) -> list[str]:
    return [run.name for run in read_runs(folders)]


@pytest.mark.parametrize(
    ("told", "title"),
    [
        ({"model": "drnet", "cascade": {"name": "mcr"}, "n": None}, "DR-Net MCR n=1"),
        ({"model": "vtn", "cascade": {"name": "cr", "stages": ["vtn", "vtn", "drnet"]}}, "VTN+DR-Net CR n=3"),
        ({"model": "vtn", "cascade": "cr", "n": 0}, "Affine network"),
        ({"model": "my_net", "cascade": "mine", "n": 1, "r": 4}, "my_net mine n=1 r=4"),
        ({"method": {"name": "ants_syn", "seed": 1}}, "ANTs SyN"),
        ({"n": 2}, ""),
    ],
)
def test_titles_are_networks_cascades_and_methods(told, title):
    assert what_is(told).title == title


def test_a_name_tells_as_much_as_tells_runs_apart(tmp_path):
    one = evaluated(tmp_path / "12-00-00")
    assert named(one) == ["VoxelMorph CR n=2"]
    assert named(one, evaluated(tmp_path / "r", r=2)) == ["VoxelMorph CR n=2", "VoxelMorph CR n=2 r=2"]
    loss, seed = evaluated(tmp_path / "loss", loss={"lambda1": 0.5}), evaluated(tmp_path / "seed", seed=1, steps=200)
    steps = evaluated(tmp_path / "steps", steps=50)
    assert named(one, loss) == [f"VoxelMorph CR n=2 lambda1={value}" for value in (1.0, 0.5)]
    assert named(one, seed) == [f"VoxelMorph CR n=2 seed={value}" for value in (0, 1)]
    assert named(one, steps) == [f"VoxelMorph CR n=2 steps={value}" for value in (100, 50)]
    again = evaluated(tmp_path / "13-00-00")
    assert named(one, again, evaluated(tmp_path / "other", model="vtn")) == [
        "VoxelMorph CR n=2, 12-00-00",
        "VoxelMorph CR n=2, 13-00-00",
        "VTN CR n=2",
    ]


def test_an_evaluation_of_an_older_version_is_named_by_the_config_of_its_training(tmp_path):
    run = write_run(tmp_path / "run")
    assert named(run) == ["run"]
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"name": "vtn"}, "cascade": {"name": "cr"}, "n": 1}))
    summary = json.loads((run / "summary.json").read_text())
    assert what_was_evaluated(tmp_path / "elsewhere", summary).title == "VTN CR n=1"
    assert named(run) == ["VTN CR n=1"]


def test_names_that_the_user_gives_win_and_others_are_in_tables(tmp_path, capsys):
    folders = [str(evaluated(tmp_path / name, seed=seed)) for seed, name in enumerate(("a", "b"))]
    main(["compare", *folders, "--out", str(tmp_path / "out")])
    assert "| VoxelMorph CR n=2 seed=1 |" in (tmp_path / "out/table.md").read_text()
    main(["compare", *folders, "--names", "A", "B", "--out", str(tmp_path / "out")])
    assert "VoxelMorph" not in (tmp_path / "out/table.md").read_text()
    capsys.readouterr()
