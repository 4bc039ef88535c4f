"""A datalist JSON of MONAI's."""

import json
from pathlib import Path

import pytest
from toy_scans import write_scan

from regcascade.data import RegistrationData, build_data

LISTS = {"training": ["s0", "s1", "s2"], "validation": ["s3", "s4"], "test": ["s5", "s6"]}


def written(root: Path, **changes: object) -> Path:
    for k in range(7):
        write_scan(root / "scans", k, f"s{k}_{{}}.nii.gz")
    lists = {key: [{"image": f"scans/{n}_t1.nii.gz", "label": f"scans/{n}_seg.nii.gz", "fold": 0} for n in names]
             for key, names in LISTS.items()}  # fmt: skip
    (root / "list.json").write_text(json.dumps({"labels": {"0": "background", "1": "a", "2": "b"}, **lists, **changes}))
    return root / "list.json"


def build(path: Path, **options: object) -> RegistrationData:
    return build_data({"name": "datalist", "root": str(path), "size": [16, 16, 16], **options})


def test_the_lists_say_what_trains_and_what_validates(tmp_path):
    data = build(written(tmp_path))
    assert data.train_names == ["s0_t1", "s1_t1", "s2_t1"] and data.label_names == {1: "a", 2: "b"}
    assert data.validation_pairs == [("s3_t1", "s4_t1"), ("s4_t1", "s3_t1")]
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["fixed_labels"].unique().tolist() == [0, 1, 2]
    tested = build(tmp_path / "list.json", validation="test", train=None)
    assert tested.train_names == [] and {name for pair in tested.validation_pairs for name in pair} == {
        "s5_t1",
        "s6_t1",
    }


def test_a_fraction_validates_scans_of_the_list_that_trains(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = written(tmp_path).rename(tmp_path / "elsewhere/list.json")
    data = build(path, base=str(tmp_path), validation=2, seed=3)
    assert len(data.train_names) == 1 and len(data.validation_pairs) == 2 and len(data.cases) == 3


def test_test_images_may_be_listed_without_labels(tmp_path):
    data = build(written(tmp_path, test=["scans/s5_t1.nii.gz", "scans/s6_t1.nii.gz"]), validation="test")
    assert not data.has_labels and len(data.validation_pairs) == 2


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"validation": "valid"}, r"data\.validation=valid: .*list\.json has no list .*Did you mean 'validation'"),
        ({}, {"train": "fold_0"}, r"data\.train=fold_0: .*but training, validation, test.* A fraction"),
        ({"training": [{"label": "a.nii.gz"}]}, {}, r"list\.json: a scan is \{'image'.*got \{'label'"),
        ({"training": [{"image": ["a.nii.gz", "b.nii.gz"]}]}, {}, r"list\.json: a scan is .*got \{'image': \['a"),
        ({"training": [3]}, {}, r"list\.json: a scan is .*got 3"),
        ({"training": [{"image": "gone.nii.gz"}]}, {}, r"gone\.nii\.gz does not exist"),
        ({"labels": ["a"]}, {}, "'labels' must map numbers to names"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(tmp_path, changes, options, message):
    path = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        build(path, **options)


def test_what_is_no_json_is_told(tmp_path):
    (tmp_path / "x.json").write_text("{")
    for path in (tmp_path / "x.json", tmp_path / "none.json"):
        with pytest.raises(ValueError, match=r"\.json cannot be read as JSON"):
            build(path)
    with pytest.raises(ValueError, match=r"data\.root=datalist\.json"):
        build_data("datalist")
