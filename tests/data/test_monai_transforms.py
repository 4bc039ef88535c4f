"""MONAI's dictionary transforms by name: at reading, and as an augmentation."""

import numpy as np
import pytest
import torch
from toy_scans import SHAPE, write_nifti, write_scan

from regcascade.data import build_data
from regcascade.data.augmentation import build_augmentation
from regcascade.data.io.raw_scan import Source
from regcascade.data.monai_transforms import KNOWN, build_monai
from regcascade.data.preprocessing.standard import Preprocessing


def source(folder) -> Source:
    write_scan(folder, 0)
    return Source("a", folder / "t1.nii.gz", folder / "seg.nii.gz", points=folder / "points.csv")


def test_transforms_are_applied_last_when_a_scan_is_read(tmp_path):
    plain = Preprocessing(size=SHAPE).read(source(tmp_path))
    inverted = {"name": "ScaleIntensityd", "minv": 1.0, "maxv": 0.0}
    made_by = Preprocessing(size=SHAPE, transforms=[inverted, {"name": "Flipd", "spatial_axis": 1}])
    changed = made_by.read(source(tmp_path))
    torch.testing.assert_close(changed.image, 1 - plain.image.flip(2), atol=1e-6, rtol=0, check_stride=False)
    assert torch.equal(changed.labels, plain.labels.flip(2))
    wanted = plain.points * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor([0.0, SHAPE[1] - 1, 0.0])
    torch.testing.assert_close(changed.points, wanted)
    assert made_by.as_dict()["transforms"] == [inverted, {"name": "Flipd", "spatial_axis": 1}]
    assert Preprocessing(**made_by.as_dict()) == made_by and "transforms" not in Preprocessing().as_dict()


@pytest.mark.parametrize(
    "moved",
    [
        {"name": "Affined", "rotate_params": [0.2, -0.1, 0.3], "translate_params": [1.0, 0.5, -1.0]},
        {"name": "Rotated", "angle": [0.0, 0.0, 0.3]},
        {"name": "Zoomd", "zoom": 1.2},
        {"name": "Rotate90d", "k": 1, "spatial_axes": [0, 1]},
    ],
    ids=lambda spec: spec["name"],
)
def test_landmarks_follow_what_moves_the_voxels(tmp_path, moved):
    axes = np.stack(np.meshgrid(*(np.arange(24.0),) * 3, indexing="ij"), -1)
    place = np.array([13.0, 9.0, 12.0])
    blob = np.exp(-((axes - place) ** 2).sum(-1) / 6).astype(np.float32)
    write_nifti(tmp_path / "t1.nii.gz", blob, (1.0, 1.0, 1.0))
    (tmp_path / "points.csv").write_text(",".join(map(str, place)))
    made_by = Preprocessing(size=(24, 24, 24), percentiles=(0.0, 100.0), transforms=[moved])
    ready = made_by.read(Source("a", tmp_path / "t1.nii.gz", points=tmp_path / "points.csv"))
    weight = ready.image[0].numpy()
    centre = (axes * weight[..., None]).sum((0, 1, 2)) / weight.sum()
    np.testing.assert_allclose(ready.points[0], centre, atol=0.15)
    assert np.abs(centre - place).max() > 0.3


def test_a_data_set_takes_them_by_its_options(tmp_path):
    for k in range(4):
        write_scan(tmp_path / f"s{k}", k)
    spec = {"name": "subjects", "root": str(tmp_path), "images": "*/t1.nii.gz", "validation": 2}
    data = build_data({**spec, "size": [16, 16, 16], "transforms": [{"name": "ThresholdIntensityd", "threshold": 0.5}]})
    assert all(((case.image == 0) | (case.image > 0.5)).all() for case in data.cases)
    assert data.preprocessing["transforms"] == [{"name": "ThresholdIntensityd", "threshold": 0.5}]


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (["RandBiasFieldd"], r"data\.transforms: RandBiasFieldd is random.*data\.augmentation={name: monai"),
        (["MedianSmooth"], r"data\.transforms: 'MedianSmooth' is no dictionary.*Did you mean 'MedianSmoothd'"),
        ([{"name": "MedianSmoothd", "radus": 2}], "MedianSmoothd has no option 'radus'.*Did you mean 'radius'"),
        (["ThresholdIntensityd"], "ThresholdIntensityd does not take these options.*'threshold'"),
        ([{"name": "LoadImaged"}], "'LoadImaged' is no dictionary transform"),
        ([{"name": "Lambdad", "func": "print"}], "'Lambdad' is no dictionary transform"),
        ([{"_target_": "os.system"}], "is no dictionary transform"),
        ([{"name": "MedianSmoothd", "keys": ["points"]}], "keys=.*give image and label"),
    ],
)
def test_what_is_no_transform_for_reading_is_refused_by_its_option(transforms, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(transforms=transforms)


def test_a_transform_that_fails_or_changes_the_size_names_the_file_and_the_option(tmp_path):
    crop = [{"name": "CenterSpatialCropd", "roi_size": [4, 4, 4]}]
    with pytest.raises(ValueError, match=r"t1\.nii\.gz: data\.transforms changes the size"):
        Preprocessing(size=SHAPE, transforms=crop).read(source(tmp_path))
    with pytest.raises(ValueError, match=r"t1\.nii\.gz: data\.transforms cannot be applied"):
        Preprocessing(size=SHAPE, transforms=[{"name": "Flipd", "spatial_axis": 7}]).read(source(tmp_path))


def test_no_transform_reads_writes_or_calls():
    assert not {"LoadImaged", "SaveImaged", "Lambdad", "RandLambdad", "TorchVisiond"} & KNOWN.keys()
    assert {"RandBiasFieldd", "RandAffined", "RandSmoothDeformd", "NormalizeIntensityd"} <= KNOWN.keys()


def batch(points: bool = False) -> dict:
    images = torch.rand(2, 2, 1, 12, 11, 10, generator=torch.Generator().manual_seed(0))
    made = {"fixed": images[0], "moving": images[1], "fixed_name": ["a", "b"], "moving_name": ["c", "d"]}
    made |= {f"{role}_labels": 5 * (made[role] > 0.5).long() for role in ("fixed", "moving")}
    return made | ({"moving_points": torch.ones(2, 3, 3)} if points else {})


def test_a_spatial_augmentation_takes_image_and_labels_along_and_refuses_points():
    flip = build_augmentation({"name": "monai", "transforms": [{"name": "RandFlipd", "prob": 1.0, "spatial_axis": 0}]})
    changed = flip(batch(), torch.Generator().manual_seed(1))
    assert torch.equal(changed["moving"], batch()["moving"].flip(2))
    assert torch.equal(changed["moving_labels"], batch()["moving_labels"].flip(2))
    assert torch.equal(changed["fixed"], batch()["fixed"])
    with pytest.raises(ValueError, match="moves voxels, and c has points"):
        flip(batch(points=True))
    affine = {"name": "RandAffined", "prob": 1.0, "rotate_range": 0.4, "padding_mode": "border"}
    turned = build_augmentation({"name": "monai", "transforms": affine, "scans": "both"})(batch())
    assert set(turned["moving_labels"].unique().tolist()) == {0, 5}
    assert not torch.equal(turned["fixed"], batch()["fixed"])


def test_noise_is_for_points_too_and_comes_from_the_generator_alone():
    noise = build_augmentation({"name": "monai", "transforms": {"name": "RandGaussianNoised", "prob": 1.0}})
    before = np.random.get_state()[1].copy()  # noqa: NPY002, it is MONAI's where it is not seeded
    first, again, other = (noise(batch(points=True), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first["moving"], again["moving"]) and not torch.equal(first["moving"], other["moving"])
    assert torch.equal(first["moving_labels"], batch()["moving_labels"])
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_the_augmentation_wants_a_random_transform():
    for transforms in ((), ["ScaleIntensityd"]):
        with pytest.raises(ValueError, match=r"data\.augmentation\.transforms has no random transform"):
            build_augmentation({"name": "monai", "transforms": transforms})
    assert build_monai("ScaleIntensityd", "x").transforms[0].keys == ("image",)
