import json
import os
from pathlib import Path

import numpy as np
import pytest
from toy_scans import SHAPE, SPACING, scan_arrays, write_nifti

from regcascade.data import build_data
from regcascade.data.case import CaseSet
from regcascade.data.datasets.decathlon import DecathlonData
from regcascade.data.preprocessing.standard import Preprocessing

PREPROCESSING = Preprocessing(size=(16, 18, 12), fit="crop_pad", pad=0.0, percentiles=(1.0, 99.0))


def read(root: Path, **options: object) -> CaseSet:
    return DecathlonData(PREPROCESSING, str(root), validation=0, **options).cases


def edit(root: Path, **changes: object) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_cases_names_and_labels(decathlon):
    cases = read(decathlon(labelled=4, unlabelled=2))
    assert cases.names == [f"toy_{index:02d}" for index in range(6)]
    assert cases.label_names == {1: "liver", 2: "tumour"}
    assert [cases.labelled(index) for index in range(6)] == [True] * 4 + [False] * 2
    assert cases[3].name == cases[-3].name == "toy_03"
    assert cases[3].spacing == pytest.approx(SPACING)
    np.testing.assert_array_equal(cases[3].labels[0, 1:14, :, :11], scan_arrays(3)[1])
    assert cases[4].labels is None
    with pytest.raises(IndexError):
        cases[6]


def test_a_case_is_read_when_it_is_asked_for_and_then_kept(decathlon):
    root = decathlon()
    kept, fresh = read(root), read(root, cache=False)
    assert kept[0] is kept[0]
    assert fresh[0] is not fresh[0]
    for path in (root / "imagesTr").iterdir():
        path.unlink()
    assert kept[0].name == "toy_00"
    with pytest.raises(ValueError, match=r"toy_01\.nii\.gz does not exist"):
        kept[1]


def test_a_manifest_without_labels_is_a_set_without_labels(decathlon):
    root = decathlon(labelled=0, unlabelled=3)
    edit(root, labels={})
    cases = read(root)
    assert cases.label_names == {} and not cases.labelled(0)


def no_folder(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def no_manifest(root: Path) -> None:
    (root / "dataset.json").unlink()


def no_json(root: Path) -> None:
    (root / "dataset.json").write_text('{"training": [')


def binary_manifest(root: Path) -> None:
    (root / "dataset.json").write_bytes(b"\xff\xfe\x00garbage")


def manifest_is_a_list(root: Path) -> None:
    (root / "dataset.json").write_text("[]")


def no_training(root: Path) -> None:
    edit(root, training=None)


def no_scans(root: Path) -> None:
    edit(root, training=[], test=[])


def entry_without_image(root: Path) -> None:
    edit(root, training=[{"label": "labelsTr/toy_00.nii.gz"}])


def same_name_twice(root: Path) -> None:
    edit(root, test=["imagesTs/toy_00.nii.gz"])


def labels_not_numbered(root: Path) -> None:
    edit(root, labels={"background": 0, "liver": 1})


def labels_not_named(root: Path) -> None:
    edit(root, labels={"0": "background"})


def no_image_file(root: Path) -> None:
    (root / "imagesTr/toy_02.nii.gz").unlink()


def no_label_file(root: Path) -> None:
    (root / "labelsTr/toy_02.nii.gz").unlink()


def empty_file(root: Path) -> None:
    (root / "imagesTr/toy_02.nii.gz").write_bytes(b"")


def four_axes(root: Path) -> None:
    write_nifti(root / "imagesTr/toy_02.nii.gz", np.zeros((*SHAPE, 2), np.float32))


def other_shape(root: Path) -> None:
    write_nifti(root / "labelsTr/toy_02.nii.gz", np.zeros((13, 18, 12), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_folder, r"no folder .*Task99_Toy.*data\.root=DIR"),
        (no_manifest, r"Task99_Toy has no dataset\.json"),
        (no_json, r"dataset\.json cannot be read as JSON"),
        (binary_manifest, r"dataset\.json cannot be read as JSON"),
        (manifest_is_a_list, r"dataset\.json has no list 'training'"),
        (no_training, r"dataset\.json has no list 'training'"),
        (no_scans, r"dataset\.json lists no scans"),
        (entry_without_image, r"dataset\.json: a scan is .*got \{'label'"),
        (same_name_twice, r"dataset\.json has more than one scan of the name 'toy_00'"),
        (labels_not_numbered, r"dataset\.json: 'labels' must map numbers to names"),
        (labels_not_named, r"dataset\.json lists label files, but"),
        (no_image_file, r"imagesTr/toy_02\.nii\.gz does not exist"),
        (no_label_file, r"labelsTr/toy_02\.nii\.gz does not exist"),
        (empty_file, r"imagesTr/toy_02\.nii\.gz cannot be read as an image"),
        (four_axes, r"imagesTr/toy_02\.nii\.gz has 4 axes"),
        (
            other_shape,
            r"labelsTr/toy_02\.nii\.gz has the shape \(13, 18, 12\), but its image",
        ),
    ],
)
def test_what_headers_tell_is_refused_before_any_voxel_is_read(decathlon, damage, message):
    root = decathlon()
    damage(root)
    with pytest.raises(ValueError, match=message):
        build_data({"name": "msd", "root": str(root), "size": [16, 18, 12], "validation": 2})


def nan(root: Path) -> None:
    write_nifti(root / "imagesTr/toy_02.nii.gz", np.full(SHAPE, np.nan, np.float32))


def constant(root: Path) -> None:
    write_nifti(root / "imagesTr/toy_02.nii.gz", np.ones(SHAPE, np.float32))


def cut_short(root: Path) -> None:
    path = root / "imagesTr/toy_02.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def labels_cut_short(root: Path) -> None:
    path = root / "labelsTr/toy_02.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def fractions(root: Path) -> None:
    write_nifti(root / "labelsTr/toy_02.nii.gz", np.full(SHAPE, 0.5, np.float32))


def unknown_label(root: Path) -> None:
    write_nifti(root / "labelsTr/toy_02.nii.gz", np.full(SHAPE, 7, np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan, r"toy_02\.nii\.gz has voxels that are NaN"),
        (constant, r"toy_02\.nii\.gz is constant"),
        (cut_short, r"imagesTr/toy_02\.nii\.gz cannot be read"),
        (labels_cut_short, r"labelsTr/toy_02\.nii\.gz cannot be read"),
        (fractions, r"toy_02\.nii\.gz: labels must be whole numbers"),
        (unknown_label, r"toy_02\.nii\.gz has the labels \[7\]"),
    ],
)
@pytest.mark.parametrize("cache", [True, False])
def test_damaged_content_is_found_before_training(decathlon, damage, message, cache):
    root = decathlon()
    damage(root)
    data = build_data({"name": "msd", "root": str(root), "size": [16, 18, 12], "validation": 2, "cache": cache})
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


@pytest.mark.shared
def test_hippocampus():
    shared = Path(os.environ.get("REGCASCADE_SHARED", Path(__file__).parents[4] / "shared"))
    root = shared / "data/Task04_Hippocampus"
    if not root.is_dir():
        pytest.skip(f"there is no {root}; set REGCASCADE_SHARED to the folder that holds data/")
    data = build_data(
        {
            "name": "msd",
            "root": str(root),
            "size": [48, 64, 48],
            "validation": 30,
            "validate": False,
        }
    )
    assert (len(data.train_names), len(data.validation_pairs)) == (190, 60)
    assert data.label_names == {1: "Anterior", 2: "Posterior"} and data.has_labels
    overlaps = []
    for batch in list(data.val_dataloader())[:12]:
        assert batch["fixed"].shape == (1, 1, 48, 64, 48)
        assert 0 <= batch["fixed"].min() < 0.05 and 0.95 < batch["fixed"].max() <= 1
        for label in data.label_names:
            fixed, moving = batch["fixed_labels"] == label, batch["moving_labels"] == label
            overlaps.append(2 * (fixed & moving).sum() / (fixed.sum() + moving.sum()))
    assert 0.45 < np.mean(overlaps) < 0.75  # no registration: about 0.59
