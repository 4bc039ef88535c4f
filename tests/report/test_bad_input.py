"""Scans without labels or landmarks, from the files through the evaluation to the table, the figures and the page."""

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from phantom_runs import MODEL, failed

from regcascade.cascades import build
from regcascade.cascades.checkpoint import CHECKPOINT_KEY, describe, read
from regcascade.cli.main import main
from regcascade.data import build_data
from regcascade.evaluation.run import evaluate_to_folder
from regcascade.report.runs.run import read_runs
from regcascade.report.tables.compare import compare, numbers, shown_table, shown_tests

SIZE = (17, 16, 18)
BOXES = {1: (slice(2, 8), slice(3, 9), slice(4, 10)), 2: (slice(9, 15), slice(4, 9), slice(5, 12))}
SCANS = {"both_1": (1, 2), "both_2": (1, 2), "one": (1,), "none_1": (), "none_2": ()}
POINTS = {"both_1": "3,4,5\n,,\n", "both_2": "4,5,6\n9,9,9\n", "one": ",,\n,,\n"}  # x, y, z
CASES = [("both_1", "both_2"), ("both_1", "one"), ("none_1", "both_1"), ("none_1", "none_2")]


def write_scans(folder: Path, pairs: list[tuple[str, str]], labels: bool = True) -> dict:
    """Scans of two boxes, of which some lack one or both labels, and a table of pairs; the options of their data."""
    generator = np.random.default_rng(0)
    for number, (name, present) in enumerate(SCANS.items()):
        found = np.zeros(SIZE, np.uint8)
        for label in present:
            found[BOXES[label]] = label
        found = np.roll(found, number, axis=0)
        image = (found + generator.uniform(0, 0.3, SIZE)).astype(np.float32)
        for kind, volume in (("image", image), ("labels", found)):
            nibabel.Nifti1Image(volume, np.diag([1.0, 1.5, 2.0, 1.0])).to_filename(folder / f"{name}_{kind}.nii.gz")
        (folder / f"{name}.csv").write_text("x,y,z\n" + POINTS.get(name, ",,\n,,\n"))
    columns = {"": "_image.nii.gz", "_points": ".csv"} | ({"_labels": "_labels.nii.gz"} if labels else {})
    rows = [{f"{role}{c}": f"{name}{end}" for role, name in zip(("fixed", "moving"), pair, strict=True)
             for c, end in columns.items()} for pair in pairs]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    names = {"label_names": {1: "liver", 2: "spleen"}} if labels else {}
    return {"name": "pairs", "validation": str(folder / "table.csv"), "size": list(SIZE), **names}


def evaluated(folder: Path, options: dict, name: str = "run") -> Path:
    """A run of an untrained network, which is the identity, on that data."""
    data = build_data(options)
    cascade = build(MODEL, "cr", 1, "none", data.size)
    description = describe(MODEL, "cr", 1, "none", data.size, data.label_names, data.preprocessing, options)
    run = folder / name
    run.mkdir()
    weights = {f"cascade.{key}": value for key, value in cascade.state_dict().items()}
    torch.save({"state_dict": weights, "global_step": 1, CHECKPOINT_KEY: description}, run / "model.ckpt")
    evaluate_to_folder(read(run / "model.ckpt").build(), data, run, run / "model.ckpt")
    return run


def strict_json(path: Path) -> dict:
    """A JSON file, which must not hold NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def run(tmp_path) -> Path:
    return evaluated(tmp_path, write_scans(tmp_path, CASES))


def test_labels_that_are_missing_count_as_defined_and_are_never_made_up(run):
    pairs = read_runs([run])[0].pairs
    one_of_two, one_scan, neither = (pairs.iloc[k] for k in (1, 2, 3))
    assert 0 < one_of_two["dice_liver"] < 1
    assert (one_of_two["dice_spleen"], one_of_two["dice_mean"]) == (0, pytest.approx(one_of_two["dice_liver"] / 2))
    assert math.isnan(one_of_two["asd_mm_spleen"]) and one_of_two["asd_mm"] == one_of_two["asd_mm_liver"] > 0
    assert (one_scan["dice_liver"], one_scan["dice_spleen"], one_scan["dice_mean"]) == (0, 0, 0)
    assert one_scan[["hd95_mm", "asd_mm"]].isna().all()
    of_labels = [column for column in pairs if column.startswith(("dice_", "jaccard_", "hd95", "asd"))]
    assert len(of_labels) >= 14 and neither[of_labels].isna().all()
    landmarks = pairs["landmark_distance_voxels"]
    assert landmarks.iloc[0] == pytest.approx(math.sqrt(3), abs=1e-3)  # of the one that both scans have
    assert landmarks.iloc[1:].isna().all()
    assert strict_json(run / "summary.json")["measures"]["dice_mean"]["mean"] == pytest.approx(
        pairs["dice_mean"].iloc[:3].mean()
    )


def test_the_table_says_of_how_many_pairs_a_mean_is_and_tests_take_those_that_both_runs_have(run, tmp_path):
    other = tmp_path / "other"
    run.rename(tmp_path / "first")
    other.mkdir()
    for file in ("pairs.csv", "summary.json"):
        (other / file).write_text((tmp_path / "first" / file).read_text())
    comparison = compare(read_runs([tmp_path / "first", other]))
    shown = shown_table(comparison).iloc[0]
    assert shown["Dice"].endswith("n=3") and shown["HD95 [mm]"].endswith("n=2")
    assert shown["Landmarks [voxels]"] == "1.73 n=1"  # one pair has no deviation
    assert numbers(comparison)["landmark_distance_voxels_std"].isna().all()
    tests = comparison.tests.set_index("measure")
    assert tests.loc["dice_mean", "pairs"] == 3
    assert tests.loc["landmark_distance_voxels", ["t_test", "wilcoxon", "low", "high"]].isna().all()
    assert set(shown_tests(comparison.tests[comparison.tests["pairs"] == 1])["t"]) == {"-"}


def test_figures_and_the_page_are_drawn_of_what_there_is(run, tmp_path, capsys):
    main(["figures", str(run), "--out", str(tmp_path / "out"), "--pair", "none_1_image", "none_2_image"])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["cases.png", "initial.png", "labels.png", "pair_none_1_image_none_2_image.png"]
    main(["report", str(run), "--out", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The worst 3 pairs" in page  # the fourth has no Dice: it is neither bad nor good
    assert (
        "nan" not in page.split("</style>")[1].split('id="runs"')[0].lower().replace("base64", "").split("<figure")[0]
    )
    assert "Left out" not in capsys.readouterr().out


def test_without_any_labels_cc_takes_the_place_of_dice(tmp_path):
    run = evaluated(tmp_path, write_scans(tmp_path, CASES, labels=False))
    assert read_runs([run])[0].pairs.filter(like="dice").isna().all(axis=None)
    main(["report", str(run), "--out", str(tmp_path / "page.html"), "--worst", "1"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "By the mean of the methods' CC" in page
    assert "Dice" not in page.split('id="figures"')[0].split("</style>")[1]


def test_of_one_pair_there_is_no_deviation_and_no_test(tmp_path):
    run = evaluated(tmp_path, write_scans(tmp_path, CASES[:1]))
    assert strict_json(run / "summary.json")["measures"]["dice_mean"]["std"] is None
    main(["compare", str(run), "--initial", "--out", str(tmp_path / "tables")])
    tests = pd.read_csv(tmp_path / "tables/tests.csv")
    assert tests[["low", "high", "t_test", "wilcoxon"]].isna().all(axis=None)
    assert pd.read_csv(tmp_path / "tables/table.csv")["dice_mean_std"].isna().all()
    main(["figures", str(run), "--out", str(tmp_path / "out"), "--worst", "2"])
    assert len(list((tmp_path / "out").glob("worst_*.png"))) == 1
    assert not list((tmp_path / "out").glob("best_*.png"))
    main(["report", str(run), "--out", str(tmp_path / "page.html")])
    assert "Registration of 1 pair<" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [["compare"], ["figures"], ["report"]])
def test_an_evaluation_that_did_not_end_is_refused_by_every_command(run, tmp_path, capsys, command):
    (run / "summary.json").unlink()
    assert "is an evaluation that did not end" in failed([*command, str(run), "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


def test_pairs_twice_and_names_that_no_scan_has_are_refused(run, tmp_path, capsys):
    rows = pd.read_csv(run / "pairs.csv")
    listed = tmp_path / "pairs.csv"
    options = {**write_scans(tmp_path, CASES), "pairs": str(listed)}
    rows.loc[[0, 1, 0], ["fixed", "moving"]].to_csv(listed, index=False)
    with pytest.raises(ValueError, match=r"pairs.csv.*line 4"):
        build_data(options).validation_pairs  # noqa: B018
    rows.loc[[0], ["fixed", "moving"]].replace("both_1_image", "both_3_image").to_csv(listed, index=False)
    with pytest.raises(ValueError, match=r"both_3_image"):
        build_data(options).validation_pairs  # noqa: B018
    pd.concat([rows, rows[:1]]).to_csv(run / "pairs.csv", index=False)
    for command in ("compare", "figures", "report"):
        said = failed([command, str(run), "--out", str(tmp_path / "out")], capsys)
        assert "lists 1 pairs more than once: both_1_image <- both_2_image" in said
