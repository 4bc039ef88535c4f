"""`data=pairs`: tables of files."""

import csv
import json
from pathlib import Path

import pytest
import torch
from toy_scans import write_scan

from regcascade.data import build_data
from regcascade.data.datasets.pair_tables import read_pair_tables


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four scans, `s0/t1.nii.gz` to `s3/t1.nii.gz`."""
    for index in range(4):
        write_scan(tmp_path / f"s{index}", index)
    return tmp_path


def row(fixed: int, moving: int, beside: bool = True) -> dict[str, str]:
    listed = {"fixed": f"s{fixed}/t1.nii.gz", "moving": f"./s{moving}/t1.nii.gz"}
    for role, index in {"fixed": fixed, "moving": moving}.items() if beside else ():
        listed |= {f"{role}_labels": f"s{index}/seg.nii.gz", f"{role}_points": f"s{index}/points.csv"}
    return listed


def table(path: Path, rows: list[dict[str, str]]) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for one in rows for key in one)))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def build(scans: Path, validation: list[dict[str, str]], train: list[dict[str, str]] | None = None, **options: object):
    spec = {"name": "pairs", "validation": table(scans / "val.csv", validation), "size": [16, 16, 16], **options}
    if train is not None:
        spec["train"] = table(scans / "train.json", train)
    return build_data(spec)


def test_tables_give_the_pairs_of_training_and_validation(scans):
    data = build(scans, [row(3, 2)], [row(0, 1), row(1, 2, beside=False)], label_names={"1": "one", "2": "two"})
    assert data.cases.names == ["s0_t1", "s1_t1", "s2_t1", "s3_t1"]
    assert data.validation_pairs == [("s3_t1", "s2_t1")] and data.has_labels
    assert data.train_names == ["s0_t1", "s1_t1", "s2_t1"] and data.label_names == {1: "one", 2: "two"}
    data.setup("fit")
    with pytest.warns(UserWarning, match="s2_t1 among them"):
        batches = list(data.train_dataloader())
    drawn = {(batch["fixed_name"][0], batch["moving_name"][0]) for batch in batches}
    assert drawn == {("s0_t1", "s1_t1"), ("s1_t1", "s2_t1")}
    assert {"fixed_labels", "moving_points"} <= batches[0].keys()
    (batch,) = data.val_dataloader()
    assert batch["fixed_points"].shape == (1, 3, 3)


def test_a_file_in_several_pairs_is_one_scan_read_once(scans):
    data = build(scans, [row(0, 1), row(0, 2), row(1, 0)])
    assert len(data.cases) == 3 and data.label_names == {1: "label_1", 2: "label_2"}
    assert data.cases[0] is data.cases[0]
    assert data.validation_pairs == [("s0_t1", "s1_t1"), ("s0_t1", "s2_t1"), ("s1_t1", "s0_t1")]
    with pytest.raises(ValueError, match="leaves 0 scans for training"):
        data.setup("fit")


def test_masks_blacken_what_lies_outside(scans):
    masked = build(scans, [row(0, 1) | {"fixed_mask": "s0/mask.nii.gz"}], fit="crop_pad")
    whole = build(scans, [row(0, 1)], fit="crop_pad")
    inside = masked.cases[0].labels > 0
    assert torch.equal(masked.cases[0].image[inside], whole.cases[0].image[inside])
    assert not masked.cases[0].image[~inside].any()
    assert torch.equal(masked.cases[1].image, whole.cases[1].image)


def test_names_are_those_of_files_where_these_differ(scans):
    for index in range(2):
        write_scan(scans, index, f"case{index}_{{}}.nii.gz")
    path = table(scans / "a.csv", [{"fixed": "case0_t1.nii.gz", "moving": "case1_t1.nii.gz"}])
    sources, pairs = read_pair_tables([Path(path)])
    assert [source.name for source in sources] == ["case0_t1", "case1_t1"]
    assert pairs == [[("case0_t1", "case1_t1")]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, 0)], r"val\.csv, pair 1: .*t1\.nii\.gz is paired with itself"),
        ([row(0, 1), row(1, 0), row(0, 1)], r"pair 3 repeats pair 1"),
        ([{"fixed": "s0/t1.nii.gz"}], r"pair 1 names no moving image"),
        ([{"fixed_labels": "s0/seg.nii.gz", "moving": "s1/t1.nii.gz"}], r"pair 1 names no fixed image"),
        ([row(0, 1) | {"fixed_label": "x"}], r"column 'fixed_label', which is not known.*Did you mean 'fixed_labels'"),
        ([row(0, 1) | {"moving": "s9/t1.nii.gz"}], r"s9/t1\.nii\.gz does not exist"),
        ([row(0, 1) | {"fixed_points": "s9.csv"}], r"s9\.csv does not exist"),
        ([row(0, 1), row(2, 0) | {"moving_labels": "s1/seg.nii.gz"}], r"pair 2: .*for labels here, and .*s0/seg"),
        ([{"fixed": "s0/t1.nii.gz", "moving": "s0/t1.nii"}], r"more than one scan of the name"),
    ],
)
def test_bad_tables_are_refused(scans, rows, message):
    with pytest.raises(ValueError, match=message):
        build(scans, rows)


def test_labels_that_are_not_named_and_landmarks_in_mm(scans):
    with pytest.raises(ValueError, match=r"has the labels \[2\], which data\.label_names does not name"):
        build(scans, [row(0, 1)], label_names={1: "one"}).cases[0]
    (scans / "s0/points.csv").write_text("x,y,z\n-80.5,22,150\n60,70,80\n3,4,5\n")
    with pytest.raises(ValueError, match=r"points\.csv: landmark 1.*not mm"):
        build(scans, [row(0, 1)])


def test_tables_that_are_none(tmp_path):
    (tmp_path / "empty.csv").write_text("fixed,moving\n")
    (tmp_path / "object.json").write_text("{}")
    for options, message in [
        ({}, r"data\.validation=pairs\.csv"),
        ({"validation": str(tmp_path / "nowhere.csv")}, r"nowhere\.csv cannot be read as a table"),
        ({"validation": str(tmp_path / "empty.csv")}, r"empty\.csv lists no pairs"),
        ({"validation": str(tmp_path / "object.json")}, r"object\.json must hold a list of objects"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_data({"name": "pairs", **options})
