"""Affine alignment: a known map is found again, on other grids too, and becomes the pair's map between voxels."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter
from toy_scans import oblique_affine

from regcascade.cli.main import main
from regcascade.data import build_data
from regcascade.data.preprocessing.alignment import LEVELS, _fits, align, as_itk
from regcascade.data.preprocessing.case_files import PreparedCases
from regcascade.geometry.affine import Affine, between_voxels, from_reference
from regcascade.geometry.grid import LPS_TO_RAS
from regcascade.geometry.warp import warp

SHAPE = (26, 30, 28)
WORLD = oblique_affine((2.0, 1.5, 1.8))
# From mm of the fixed scan to mm of the moving one; a few degrees and a tenth about the middle of the scan.
MIDDLE = WORLD[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + WORLD[:3, 3]
TRUE = np.eye(4)
TRUE[:3, :3] = [[1.06, 0.08, -0.03], [-0.07, 0.95, 0.05], [0.02, -0.06, 1.08]]
TRUE[:3, 3] = np.array([3.0, -2.5, 2.0]) + MIDDLE - TRUE[:3, :3] @ MIDDLE


def tissue(places):
    """A lopsided smooth body, a function of the place in mm."""
    values = np.zeros(places.shape[:-1])
    for centre, width, height in [
        ([0, 0, 0], 9, 1.0),
        ([10, 4, -6], 4, 0.8),
        ([-8, 9, 5], 4, -0.5),
        ([3, -11, 7], 3, 0.7),
    ]:
        values += height * np.exp(-((places - MIDDLE - centre) ** 2).sum(-1) / (2 * width**2))
    return values


def scan(affine, shape, map_to_fixed):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    image = tissue(grid @ map_to_fixed[:3, :3].T + map_to_fixed[:3, 3])
    image += gaussian_filter(np.random.default_rng(0).normal(size=shape), 1) * 0.02
    return MetaTensor(torch.from_numpy(image.clip(0, 1)).float()[None], affine=torch.from_numpy(affine))


@pytest.fixture(scope="module")
def pair():
    other_grid = WORLD @ np.diag([0.8, 1.1, 0.9, 1.0])
    return scan(WORLD, SHAPE, np.eye(4)), scan(other_grid, (32, 27, 31), np.linalg.inv(TRUE))


def test_a_known_map_between_scans_on_different_grids_is_found(pair):
    found = align(*pair)
    corners = MIDDLE + 12 * (np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3))
    there = corners @ TRUE[:3, :3].T + TRUE[:3, 3]
    error = np.linalg.norm(corners @ found[:3, :3].T + found[:3, 3] - there, axis=1)
    assert error.max() < 1.0 < 5 < np.linalg.norm(there - corners, axis=1).max()  # mm; voxels are 1.5 to 2
    np.testing.assert_array_equal(found, align(*pair))


def test_scans_with_nothing_in_common_are_told(pair):
    fixed, moving = pair
    far = MetaTensor(torch.zeros_like(moving.as_tensor()), affine=moving.affine)
    with pytest.raises(ValueError, match="alignment failed"):
        align(fixed, far)


def test_an_itk_image_has_its_voxels_where_the_scan_has(pair):
    image = as_itk(pair[1])
    index = (3, 20, 11)
    place = LPS_TO_RAS @ np.append(image.TransformIndexToPhysicalPoint(index), 1)
    np.testing.assert_allclose(place, np.asarray(pair[1].affine) @ [*index, 1], atol=1e-6)
    assert image[index] == float(pair[1][(0, *index)])


def test_alignments_to_one_reference_are_chained_through_it():
    maps = [np.eye(4) + np.random.default_rng(k).normal(0, 0.1, (4, 4)) for k in range(2)]
    for each in maps:
        each[3] = [0, 0, 0, 1]
    grids = [oblique_affine((1.0, 1.2, 2.0)), oblique_affine((0.7, 0.9, 1.0))]
    fixed, moving = (from_reference(each, grid) for each, grid in zip(maps, grids, strict=True))
    reference = np.array([4.0, -3.0, 6.0, 1.0])  # a place in mm, and the voxels of both scans there
    voxels = [np.linalg.inv(grid) @ each @ reference for each, grid in zip(maps, grids, strict=True)]
    np.testing.assert_allclose(between_voxels(fixed, moving).numpy() @ voxels[0], voxels[1], atol=1e-3)


def test_warping_by_the_map_between_voxels_brings_the_moving_scan_onto_the_fixed_one():
    moving_grid = WORLD @ np.diag([1.1, 0.9, 1.0, 1.0])
    fixed, moving = scan(WORLD, SHAPE, np.eye(4)), scan(moving_grid, SHAPE, np.linalg.inv(TRUE))
    voxels = between_voxels(from_reference(np.eye(4), WORLD), from_reference(TRUE, moving_grid))
    affine = Affine.of_voxels(voxels[None], SHAPE)
    moved = warp(moving.as_tensor()[None], affine.displacement())
    inside = (..., *(slice(6, -6),) * 3)
    before = (moving.as_tensor()[None] - fixed.as_tensor())[inside].abs().mean()
    assert (moved - fixed.as_tensor())[inside].abs().mean() < 0.15 * before


def test_prepare_aligns_and_a_cascade_begins_with_it(pair, tmp_path, capsys):
    import nibabel

    for name, image in zip("ab", pair, strict=True):
        nibabel.save(nibabel.Nifti1Image(image[0].numpy(), np.asarray(image.affine)), tmp_path / f"{name}.nii.gz")
    command = ["prepare", str(tmp_path), "--images", "*.nii.gz", "--out", str(tmp_path / "out"), "--workers", "1",
               "--set", "size=[24,24,24]", "fit=resample", "--align"]  # fmt: skip
    main([*command, "a"])
    cases = PreparedCases(tmp_path / "out")
    assert cases.records[0].alignment["matrix"] == np.eye(4).tolist()
    found = np.array(cases.records[1].alignment["matrix"])
    np.testing.assert_allclose(found[:3, :3] @ MIDDLE + found[:3, 3], MIDDLE + np.array([3.0, -2.5, 2.0]), atol=1.5)
    main([*command, "a"])  # nothing is done again
    assert capsys.readouterr().out.count("kept") >= 1
    main([*command, str(tmp_path / "out/cases/b.safetensors")])
    assert PreparedCases(tmp_path / "out").records[1].alignment["matrix"] == np.eye(4).tolist()
    data = build_data({"name": "prepared", "root": str(tmp_path / "out"), "train": 0, "validation": 2})
    (batch, _) = data.val_dataloader()
    assert batch["alignment"].shape == (1, 4, 4) and not torch.equal(batch["alignment"][0], torch.eye(4))
    with pytest.raises(SystemExit):
        main([*command, "c"])
    assert "no scan 'c' to align to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "size, levels",
    [
        ((48, 64, 48), [2, 1]),
        ((64, 80, 96), [4, 2, 1]),
        ((160, 192, 224), [4, 2]),
        ((512, 512, 20), [1]),
        ((17, 18, 19), [1]),
    ],
)
def test_the_pyramid_has_a_level_for_every_scan_and_no_needless_one(
    size: tuple[int, int, int], levels: list[int]
) -> None:
    image = sitk.Image(size, sitk.sitkUInt8)
    assert [shrink for shrink, _ in LEVELS if _fits(shrink, image)] == levels
