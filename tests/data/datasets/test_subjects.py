"""`data=subjects`: globs below a folder."""

from pathlib import Path

import pytest
from toy_scans import write_scan

from regcascade.data import build_data

GLOBS = {"images": "*/t1.nii.gz", "labels": "*/seg.nii.gz"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(5):
        write_scan(tmp_path / f"OAS1_{index:04d}", index)
    return tmp_path


def build(folder: Path, **options: object):
    return build_data(
        {"name": "subjects", "root": str(folder), "size": [16, 16, 16], "validation": 2, **GLOBS, **options}
    )


def test_subjects_are_split_and_read(root):
    (root / "OAS1_0003/seg.nii.gz").unlink()
    data = build(root, masks="*/mask.nii.gz", points="*/points.csv")
    assert data.cases.names == [f"OAS1_{index:04d}" for index in range(5)]
    assert len(data.train_names) == 3 and "OAS1_0003" in data.train_names  # validation is of the labelled ones
    assert data.label_names == {1: "label_1", 2: "label_2"} and data.has_labels
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["fixed"].shape == (1, 1, 16, 16, 16) and batch["fixed_points"].shape == (1, 3, 3)
    assert "fixed_labels" not in batch and "fixed_labels" in next(iter(data.val_dataloader()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, r"data\.root=DIR 'data\.images"),
        ({"images": None}, r"data\.root=DIR 'data\.images"),
        ({"root": "nowhere"}, "There is no folder nowhere"),
        ({"images": "*/t2.nii.gz"}, r"nothing that matches '\*/t2\.nii\.gz'"),
        ({"points": "*/landmarks.csv"}, r"nothing that matches '\*/landmarks\.csv'"),
        ({"masks": "*/brain.nii.gz"}, r"nothing that matches '\*/brain\.nii\.gz'"),
        ({"images": "OAS1_*/t?.nii.gz", "labels": None, "validation": 9}, r"data\.validation=9 asks for 9"),
        ({"label_names": {"liver": "1"}}, r"data\.label_names"),
        ({"cache": "some"}, r"data\.cache=some is not valid"),
    ],
)
def test_bad_options_are_refused(root, options, message):
    with pytest.raises(ValueError, match=message):
        build(root, **options)


def test_bad_files_are_refused(root):
    (root / "OAS1_0001/t1.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"OAS1_0001/seg\.nii\.gz has no image .*labels without an image"):
        build(root)
    with pytest.raises(ValueError, match=r"OAS1_0001/points\.csv has no image .*points without an image"):
        build(root, labels=None, points="*/points.csv")


def test_any_two_scans_need_as_many_landmarks(root):
    (root / "OAS1_0002/points.csv").write_text("x,y,z\n1,2,3\n")
    with pytest.raises(ValueError, match=r"has 3 landmarks and .*OAS1_0002/points\.csv 1"):
        build(root, points="*/points.csv")
