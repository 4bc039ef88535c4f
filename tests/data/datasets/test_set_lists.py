"""The lists of public sets: whole, in step with the configs, their commands real, their counts the papers'."""

import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from rcn_toys import brain_json, edit, liver_json

from regcascade.cli.commands.prepare import _take, recipe_of
from regcascade.cli.main import main, make_parser
from regcascade.data import build_data
from regcascade.data.datasets.set_lists import ROLES, read_set_list
from regcascade.data.preprocessing.case_files import PreparedCases
from regcascade.data.preprocessing.recipes import build_recipe

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "data/lists").glob("*.yaml"))
LISTS = {path.stem: read_set_list(path) for path in FILES}
LIVER, BRAIN = (
    yaml.safe_load((ROOT / f"conf/data/{name}.yaml").read_text(encoding="utf-8")) for name in ("liver", "brain")
)


def test_every_set_of_the_configs_has_a_list_of_its_role():
    for config in (LIVER, BRAIN):
        for role, sets in (("train", config["root"]), ("test", config["test"])):
            for name, folder in sets.items():
                assert LISTS[name].role == role and LISTS[name].name == name
                assert folder in (None, f"data/prepared/{name}")
                assert all(f"--out data/prepared/{name}" in command for command in LISTS[name].commands)
    used = {name for config in (LIVER, BRAIN) for part in ("root", "test") for name in config[part]}
    assert set(LISTS) - used == {"hippocampus"}


def test_the_counts_are_the_papers():
    trained = [LISTS[name].cases for name in LIVER["root"]]
    assert sum(trained) == 1025 and trained == [443, 420, 70, 92]
    assert [LISTS[name].cases for name in BRAIN["root"]] == [66, 1287, 949]
    assert {name: one.pairs for name, one in LISTS.items() if one.role == "test"} == {
        "sliver": 380, "lits": 17_030, "lspig": 34, "lpba": 39,
    }  # fmt: skip
    for name in ("sliver", "lits"):
        assert LISTS[name].pairs == LISTS[name].cases * (LISTS[name].cases - 1)
    assert LISTS["lspig"].pairs == LISTS["lspig"].cases and LISTS["lpba"].pairs == LISTS["lpba"].cases - 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_parses_and_its_recipe_is_valid(path, tmp_path, monkeypatch):
    """The JSON of the authors stands for itself, so that it is told from a folder."""
    listed = LISTS[path.stem]
    assert listed.source and listed.terms and listed.role in ROLES and listed.commands
    forms = [listed.raw, listed.rcn_h5]
    assert len(listed.commands) == sum(form is not None for form in forms)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "datasets").mkdir()
    for name in ("liver", "brain"):
        (tmp_path / f"datasets/{name}.json").write_text('{"files": {}}')
    for command in listed.commands:
        program, *arguments = shlex.split(command)
        options = make_parser().parse_args(arguments)
        assert program == "regcascade" and options.list.resolve() == path.resolve()
        _take(options, read_set_list(options.list))
        assert options.recipe and build_recipe(recipe_of(options.recipe, options.options))


def ct(path: Path, labels: Path | None = None, value: int = 1) -> None:
    """A body with a liver of 800 ml in it, and what its label map says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.full((40, 40, 40), -1000.0, np.float32)
    voxels[4:36, 4:36, 4:36] = 0
    voxels[10:26, 10:26, 10:26] = 110
    for file, array in ((path, voxels), (labels, np.where(voxels == 110, value, 0).astype(np.uint8))):
        if file is None:
            continue
        if file.suffix == ".mhd":
            image = sitk.GetImageFromArray(array.T.copy())
            image.SetSpacing((6.0, 6.0, 6.0))
            sitk.WriteImage(image, str(file))
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.diag([6.0, 6, 6, 1])), file)


def run(source: Path, name: str, out: Path, *more: str) -> None:
    command = ["prepare", str(source), "--list", str(ROOT / f"data/lists/{name}.yaml"), "--out", str(out / name)]
    main([*command, "--workers", "1", *more])


def test_the_liver_lists_prepare_what_data_liver_reads(tmp_path, capsys):
    """Raw downloads where there are any, the authors' files where not, under one name for the liver."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    small = ("--set", "size=[16,18,16]")
    for k in range(2):
        ct(raw / f"Task08/images{'TrTs'[2 * k : 2 * k + 2]}/hepaticvessel_{k}.nii.gz")
        ct(raw / f"SLIVER/liver-orig00{k}.mhd", raw / f"SLIVER/liver-seg00{k}.mhd")
        ct(raw / f"LiTS/volume-{k}.nii", raw / f"LiTS/segmentation-{k}.nii", 1 + k)
    (raw / "Task08/dataset.json").write_text('{"training": [], "labels": {"1": "vessel"}}')
    run(raw / "Task08", "vessel", out, *small)
    run(raw / "SLIVER", "sliver", out, *small)
    assert "2 scans are ready, and the papers use 20 of SLIVER07" in " ".join(capsys.readouterr().out.split())
    run(raw / "LiTS", "lits", out, *small)
    root = liver_json(tmp_path)
    run(root, "bfh", out, *small)
    run(root, "lspig", out, *small)
    assert PreparedCases(out / "bfh").names == ["a", "b"]
    assert [record.labels for record in PreparedCases(out / "lits").records] == [[1], [1]]
    data = build_data(
        {
            "name": "prepared", "root": {name: str(out / name) for name in ("vessel", "bfh")},
            "test": {name: str(out / name) for name in ("sliver", "lits", "lspig")},
            "pairing": LIVER["pairing"], "validation_pairs": None,
        }
    )  # fmt: skip
    assert data.label_names == {1: "liver"} and len(data.validation_pairs) == 2 + 2 + 6


def test_the_brain_lists_prepare_freesurfers_folders_and_the_authors_files(tmp_path):
    for k in range(2):
        head = np.zeros((20, 20, 20), np.float32)
        head[5:15, 6:14, 5 : 12 + k] = np.random.default_rng(k).uniform(20, 100, (10, 8, 7 + k))
        folder = tmp_path / f"subjects/s{k}/mri"
        folder.mkdir(parents=True)
        nibabel.save(nibabel.MGHImage(head, np.eye(4)), folder / "brain.mgz")
    run(tmp_path / "subjects", "abide", tmp_path / "out", "--set", "size=[16,16,16]")
    assert PreparedCases(tmp_path / "out/abide").names == ["s0", "s1"]
    root = brain_json(tmp_path)
    # As in the authors' JSON, the atlas is in no subset.
    edit(root, lambda content: content["subsets"].update({"lpba-val": content["subsets"].pop("val")[1:]}))
    edit(root, lambda content: content.update(schemes={"2": {"lpba-val": 1.0}}))
    run(root, "lpba", tmp_path / "out", "--set", "size=[16,18,16]")
    run(root, "adni", tmp_path / "out", "--set", "size=[16,18,16]")
    assert PreparedCases(tmp_path / "out/lpba").names == ["S01", "S02", "S03"]
    assert PreparedCases(tmp_path / "out/adni").names == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (No such file"),
        ("[1]", "is no list of a set"),
        ("name: [x", "cannot be read as YAML"),
        ("name: x\n", "is no whole list of a set (missing"),
        ("nme: x\n", "'nme' is not known. Known: name, title"),
        ("raw: {recipes: liver}\n", "raw: 'recipes' is not known. Known: images, labels"),
        ("raw: {set: liver}\n", "raw.set must be a mapping, not 'liver'"),
        ("name: x\ntitle: x\nrole: tst\nsource: x\nterms: x\ncommands: []\n", "role='tst' is not valid"),
        ("name: x\ntitle: x\nrole: test\nsource: x\nterms: x\ncommands: []\n", "which . is not"),
    ],
)  # fmt: skip
def test_a_list_that_is_none_is_told(text, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(SystemExit):
        main(["prepare", ".", "--list", "list.yaml", "--out", "out"])
    assert message in capsys.readouterr().err
