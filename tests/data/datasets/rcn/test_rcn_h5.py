"""`data=rcn_h5`: files as RCN's authors published theirs, made small."""

import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rcn_toys import POINTS, SIZE, brain_json, edit, liver_json, volume

from regcascade.data import build_data


@pytest.fixture
def liver(tmp_path: Path) -> Path:
    return liver_json(tmp_path)


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    return brain_json(tmp_path)


def build(json_file: Path, **options: object):
    return build_data({"name": "rcn_h5", "root": str(json_file), "num_workers": 0, **options})


def test_a_case_is_what_its_group_holds(liver):
    data = build(liver)
    assert data.size == SIZE and data.label_names == {1: "liver"} and data.has_labels
    case = data.cases[data.cases.names.index("yanx/2")]
    np.testing.assert_allclose(case.image[0] * 255, volume(1), atol=1e-4)
    assert case.labels.dtype == torch.int16 and case.labels.unique().tolist() == [0, 1]
    assert case.labels.sum() == 2 * 6 * 6
    wanted = np.where(POINTS < 0, np.nan, POINTS)
    np.testing.assert_array_equal(case.points, wanted)
    assert case.spacing == (1.0, 1.0, 1.0) and build(liver, spacing=[2, 1, 1.5]).cases[0].spacing == (2.0, 1.0, 1.5)
    vessel = data.cases[data.cases.names.index("vessel/0")]
    assert vessel.labels is None and vessel.points is None
    json.dumps(data.preprocessing)


def test_pairs_are_within_a_subset_and_training_draws_by_the_schemes_weights(liver):
    data = build(liver, validation_pairs=None, pairs_per_epoch=4000)
    assert data.validation_pairs == [
        (f"yanx/{fixed}", f"yanx/{moving}") for fixed in (3, 1, 2) for moving in (3, 1, 2) if fixed != moving
    ]
    drawn = data.train_dataloader().dataset
    pairs = [tuple(data.cases.names[k].split("/")[0] for k in drawn.draw(number)) for number in range(4000)]
    counts = Counter(pairs)
    assert set(counts) == {("vessel", "vessel"), ("youyi", "youyi")}
    assert counts["vessel", "vessel"] / 4000 == pytest.approx(0.75, abs=0.03)
    batch = next(iter(data.val_dataloader()))
    assert batch["fixed"].shape == (1, 1, *SIZE) and batch["moving_points"].shape == (1, 6, 3)


def test_adjacent_scans_are_paired_both_ways(liver):
    """34 pairs of LSPIG's 17 animals; here 6 of 3."""
    data = build(liver, validation="lspig", pairing="adjacent", train=None, validation_pairs=None)
    assert len(data.validation_pairs) == 6 and not data.train_names
    assert data.validation_pairs[:2] == [
        ("pigs/2017_0_after", "pigs/2017_0_pre"),
        ("pigs/2017_0_pre", "pigs/2017_0_after"),
    ]
    assert all(fixed.split("_")[1] == moving.split("_")[1] for fixed, moving in data.validation_pairs)


def test_files_of_other_schemes_need_not_be_there(liver):
    for name in ("msd", "bfh", "pigs"):
        (liver.parent / f"{name}.h5").unlink()
    assert build(liver, train=None, validation=2).has_labels
    with pytest.raises(ValueError, match=r"(msd|bfh)\.h5 does not exist.*data\.train=null"):
        build(liver)


def test_the_atlas_is_fixed_in_training_too(brain):
    data = build(brain, pairs_per_epoch=30)
    assert data.validation_pairs == [("lpba/S01", "lpba/S02"), ("lpba/S01", "lpba/S03")]
    assert data.label_names == {21: "gyrus", 182: "182"}
    assert data.cases[data.cases.names.index("lpba/S02")].labels.unique().tolist() == [0, 21, 182]
    batches = list(data.train_dataloader())
    assert {batch["fixed_name"][0] for batch in batches} == {"lpba/S01"}
    assert {batch["moving_name"][0] for batch in batches} == {"adni/1", "adni/2"}
    assert build(brain, atlas="lpba/S02").validation_pairs[0] == ("lpba/S02", "lpba/S01")
    assert len(build(brain, pairing="subset", validation_pairs=None).validation_pairs) == 6


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"root": None}, r"data\.root=datasets/liver\.json"),
        ({}, {"root": "nowhere.json"}, r"nowhere\.json cannot be read as JSON"),
        ({}, {"validation": "lspigs"}, r"data\.validation=lspigs: .*no scheme.*Did you mean 'lspig'"),
        ({}, {"train": 3}, r"data\.train=3: .*liver\.json has no scheme .* It has: 1, 2, lspig"),
        ({}, {"pairing": "paired"}, r"data\.pairing=paired is not valid"),
        ({}, {"pairing": "atlas"}, r"liver\.json names no 'atlas'"),
        ({}, {"atlas": "yanx/9"}, r"data\.atlas=yanx/9: no subset of .* has that scan"),
        ({}, {"atlas": "yanx/1", "pairing": "subset"}, r"data\.atlas=yanx/1 needs data\.pairing=atlas"),
        ({}, {"spacing": [1, 0, 1]}, r"data\.spacing=\[1, 0, 1\] is not valid"),
        ({"files": {}}, {}, r"liver\.json has no 'files'"),
        ({"files": {"yanx": "x.h5"}}, {}, r"'files' must map keys to files"),
        ({"files": {"yanx": {"path": "datasets/sliver.h5"}}}, {}, r"the scan 'vessel/0' is of no file"),
        ({"schemes": {"1": {"x": 1}, "2": {"sliver-val": 1}}}, {}, r"scheme '1' has the subset 'x', which 'subsets'"),
        ({"schemes": {"1": {"off": -1}}}, {}, r"the scheme '1' gives 'off' the weight -1"),
        ({"schemes": {"1": {"off": 0.0}}}, {}, r"data\.train=1: the scheme '1' .* has no scan to draw"),
        ({"subsets": {"off": "yanx/1"}}, {}, r"the subset 'off' under 'subsets' must be a list"),
        ({"subsets": {"off": ["a/1", "a/1"]}}, {}, r"the subset 'off' lists 'a/1' more than once"),
        ({"image_size": [16, 18, 17]}, {}, r"volume has the shape \(16, 18, 16\), and should have \(16, 18, 17\)"),
        ({"image_size": [16]}, {}, r"liver\.json: image_size=\[16\] is not valid"),
        ({"segmentation_class_value": [1]}, {}, r"'segmentation_class_value' must map"),
        ({"atlas": 7}, {}, r"liver\.json: 'atlas' must be the name of a scan, not 7"),
        ({"atlas": ["yanx/1"]}, {}, r"'atlas' must be the name of a scan"),
    ],
)  # fmt: skip
def test_what_the_json_and_options_say_must_fit(liver, change, options, message):
    edit(liver, lambda content: content.update(change))
    with pytest.raises(ValueError, match=message):
        build(liver, **options)


@pytest.mark.parametrize("text", ["[]", "{", '{"files": 1}', "[" * 100_000, '{"files":' * 50_000])
def test_another_json_is_refused(liver, text):
    liver.write_text(text)
    with pytest.raises(ValueError, match=r"liver\.json (has no 'files'|cannot be read as JSON)"):
        build(liver)


def no_group(file: h5py.File) -> None:
    del file["2"]


def no_volume(file: h5py.File) -> None:
    del file["2/volume"]


def flat_segmentation(file: h5py.File) -> None:
    del file["2/segmentation"]
    file["2/segmentation"] = np.zeros(SIZE[:2])


def points_in_2d(file: h5py.File) -> None:
    del file["2/point"]
    file["2/point"] = np.zeros((6, 2))


def words(file: h5py.File) -> None:
    del file["2/point"]
    file["2/point"] = np.full((6, 3), b"x")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_group, r"sliver\.h5 has no group '2', which a subset of .*liver\.json lists"),
        (no_volume, r"sliver\.h5 has no 'volume' in its group '2'"),
        (flat_segmentation, r"sliver\.h5: 2/segmentation has the shape \(16, 18\)"),
        (points_in_2d, r"sliver\.h5: 2/point has the shape \(6, 2\), and should have \(K, 3\)"),
        (words, r"sliver\.h5: 2/point holds no numbers"),
    ],
)
def test_groups_that_are_not_as_they_should_be_are_named(liver, damage, message):
    with h5py.File(liver.parent / "sliver.h5", "a") as file:
        damage(file)
    with pytest.raises(ValueError, match=message):
        build(liver)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(SIZE, 300.0), r"2/volume has values outside 0\.\.255"),
        (np.full(SIZE, np.nan), r"2/volume has values outside 0\.\.255"),
        (np.full(SIZE, 7), r"2/volume is constant"),
    ],
)
def test_volumes_that_are_none_are_named(liver, values, message):
    with h5py.File(liver.parent / "sliver.h5", "a") as file:
        del file["2/volume"]
        file["2/volume"] = values
    data = build(liver, validate=True)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_a_damaged_file_is_named(liver):
    path = liver.parent / "sliver.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"sliver\.h5 cannot be read as HDF5"):
        build(liver)
    path.write_text("no HDF5")
    with pytest.raises(ValueError, match=r"sliver\.h5 cannot be read as HDF5"):
        build(liver)


def test_damaged_voxels_are_named(liver):
    """The headers are whole, so that it shows when the scan is read."""
    path = liver.parent / "sliver.h5"
    with h5py.File(path) as file:
        chunk = file["2/segmentation"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    data = build(liver)
    with pytest.raises(ValueError, match=r"sliver\.h5: 2/segmentation cannot be read"):
        data.cases[data.cases.names.index("yanx/2")]


def test_a_landmark_outside_its_volume_is_named(liver):
    with h5py.File(liver.parent / "sliver.h5", "a") as file:
        file["2/point"][0] = [15, 17.6, 15]
    data = build(liver)
    with pytest.raises(ValueError, match=r"sliver\.h5: 2/point has a landmark outside the volume, .*\(16, 18, 16\)"):
        data.cases[data.cases.names.index("yanx/2")]
