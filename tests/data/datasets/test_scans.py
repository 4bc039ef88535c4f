"""Listed scans as a set of cases: labels named or found, masks, landmarks, the cache."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from toy_scans import SHAPE, scan_arrays, write_nifti, write_scan

from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.scan_lists import Source
from regcascade.data.preprocessing.standard import Preprocessing

PREPROCESSING = Preprocessing(size=(16, 18, 12), fit="crop_pad", pad=0.5, percentiles=(1.0, 99.0))


def sources(root: Path, count: int = 3, landmarks: int = 3) -> list[Source]:
    folders = [root / f"s{index}" for index in range(count)]
    for index, folder in enumerate(folders):
        write_scan(folder, index, landmarks=landmarks)
    return [
        Source(f.name, f / "t1.nii.gz", f / "seg.nii.gz", f / "mask.nii.gz", f / "points.csv") for f in folders
    ]  # fmt: skip


def test_cases_have_labels_points_and_what_lies_inside_their_masks(tmp_path):
    listed = sources(tmp_path)
    listed[2] = replace(listed[2], labels=None, points=None, mask=None)
    cases = Scans(listed, PREPROCESSING, {1: "one", 2: "two"}, masked=True)
    assert cases.names == ["s0", "s1", "s2"] and cases.labelled_names() == ["s0", "s1"]
    assert [cases.landmarked(k) for k in range(3)] == [True, True, False]
    case, whole = cases[0], Scans(listed, PREPROCESSING, {1: "one", 2: "two"})[0]
    torch.testing.assert_close(case.points[0], torch.tensor([4.0, 5.0, 4.0]))  # padded by one voxel along x alone
    inside = torch.zeros(16, 18, 12, dtype=torch.bool)
    inside[1:14, :, :11] = torch.from_numpy(scan_arrays(0)[1] > 0)
    scan = torch.zeros_like(inside)
    scan[1:14, :, :11] = True
    assert torch.equal(case.image[0][inside], whole.image[0][inside])
    assert not case.image[0][scan & ~inside].any() and (case.image[0][~scan] == 0.5).all()
    assert cases[2].labels is None and cases[2].points is None and cases[2].image.min() >= 0
    with pytest.raises(IndexError):
        cases[3]


def test_without_names_every_value_found_gets_one(tmp_path):
    listed = sources(tmp_path)
    write_nifti(listed[1].labels, np.where(scan_arrays(1)[1] == 2, 7, 0).astype(np.uint8))
    assert Scans(listed, PREPROCESSING, None).label_names == {1: "label_1", 2: "label_2", 7: "label_7"}
    assert Scans([replace(listed[0], labels=None)], PREPROCESSING, None).label_names == {}
    write_nifti(listed[1].labels, np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(ValueError, match=r"s1/seg\.nii\.gz: labels must be whole numbers"):
        Scans(listed, PREPROCESSING, None)


def test_a_value_that_is_not_named_is_told_with_where_names_are(tmp_path):
    cases = Scans(sources(tmp_path), PREPROCESSING, {1: "one"}, named_in="'labels' in x.json")
    with pytest.raises(ValueError, match=r"s0/seg\.nii\.gz has the labels \[2\], which 'labels' in x\.json does not"):
        cases[0]


@pytest.mark.parametrize("cache", ["float32", "float16", "uint8", "none", True, False])
def test_a_cached_case_is_what_was_read(tmp_path, cache):
    listed = sources(tmp_path, 1)
    fresh = Scans(listed, PREPROCESSING, None, "none")[0]
    cases = Scans(listed, PREPROCESSING, None, cache)
    error = {"float16": 2**-12, "uint8": 0.5 / 255 + 1e-6}.get(str(cache), 0)
    for _ in range(2):
        assert (cases[0].image - fresh.image).abs().max() <= error
        assert torch.equal(cases[0].labels, fresh.labels) and torch.equal(cases[0].points, fresh.points)
    for path in (tmp_path / "s0").iterdir():
        path.unlink()
    if cache in ("none", False):
        with pytest.raises(ValueError, match="does not exist"):
            cases[0]
    else:
        assert cases[0].name == "s0"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "t1.nii.gz").unlink(), r"s1/t1\.nii\.gz does not exist"),
        (lambda f: (f / "seg.nii.gz").unlink(), r"s1/seg\.nii\.gz does not exist"),
        (lambda f: (f / "points.csv").unlink(), r"s1/points\.csv does not exist"),
        (lambda f: (f / "points.csv").write_text("x,y,z\n-60.5,12,150\n"), r"landmark 1, \[-60\.5.*not mm"),
        (lambda f: write_nifti(f / "mask.nii.gz", np.ones((3, 4, 5), np.uint8)), r"mask\.nii\.gz has the shape"),
    ],
)
def test_bad_files_are_found_before_any_voxel_is_read(tmp_path, damage, message):
    listed = sources(tmp_path)
    damage(tmp_path / "s1")
    with pytest.raises(ValueError, match=message):
        Scans(listed, PREPROCESSING, {1: "one", 2: "two"})


def test_an_empty_mask_is_named(tmp_path):
    listed = sources(tmp_path, 1)
    write_nifti(listed[0].mask, np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match=r"mask\.nii\.gz is an empty mask"):
        Scans(listed, PREPROCESSING, None, masked=True)[0]


def test_scans_that_meet_need_as_many_landmarks(tmp_path):
    listed = [*sources(tmp_path / "a", 2), *sources(tmp_path / "b", 2, landmarks=4)]
    listed = [replace(source, name=f"s{k}") for k, source in enumerate(listed)]
    cases = Scans([*listed, replace(listed[0], name="none", points=None)], PREPROCESSING, None)
    cases.check_landmarks([("s0", "s1"), ("s3", "s2"), ("s0", "none")], ["none", "s2", "s3"])
    for pairs, together in [([("s0", "s2")], []), ([], ["s1", "none", "s3"])]:
        with pytest.raises(ValueError, match=r"points\.csv has 3 landmarks and .*points\.csv 4"):
            cases.check_landmarks(pairs, together)


def test_label_names_as_a_user_gives_them():
    assert check_label_names(None) is None
    assert check_label_names({"2": "b", 1: "a", 0: "background"}) == {1: "a", 2: "b"}
    for wrong in ({"liver": "1"}, {-1: "x"}):
        with pytest.raises(ValueError, match=r"data\.label_names"):
            check_label_names(wrong)


def test_the_frame_is_the_commonest_orientation_and_the_median_spacing(tmp_path):
    voxels = np.random.default_rng(0).random((9, 8, 7))
    listed = []
    for index, diagonal in enumerate([(-2, -1, 3), (-2, -1, 4), (1, 1, 9)]):
        path = tmp_path / f"{index}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*diagonal, 1.0])), path)
        listed.append(Source(str(index), path))
    assert Scans(listed, PREPROCESSING, {}).preprocessing == {
        **PREPROCESSING.as_dict(), "orientation": "LPS", "spacing": [2.0, 1.0, 4.0]
    }  # fmt: skip
