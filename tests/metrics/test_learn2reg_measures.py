"""Against the formulas of Learn2Reg's evaluator, written out in NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from regcascade.metrics.learn2reg import learn2reg_measures
from regcascade.metrics.pair import pair_measures

SIZE = (23, 17, 30)
LABELS = [1, 2, 7, 9]


def ellipsoids(shift=(0, 0, 0)):
    """Labels 1, 2 and 7, the first two touching, moved by `shift` voxels."""
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in SIZE), indexing="ij"), axis=-1) - np.array(shift)
    labels = np.zeros(SIZE, dtype=np.int64)
    for label, centre, radii in [(1, (8, 8, 9), (5, 5, 6)), (2, (14, 9, 14), (6, 4, 5)), (7, (9, 7, 22), (3, 4, 3))]:
        labels[(((grid - centre) / radii) ** 2).sum(-1) <= 1] = label
    return torch.from_numpy(labels)[None, None]


def pair(shift=(0, 0, 0)):
    random = torch.Generator().manual_seed(0)
    points = 3 + 12 * torch.rand(1, 6, 3, generator=random)
    return {
        "fixed": torch.rand(1, 1, *SIZE, generator=random), "moving": torch.rand(1, 1, *SIZE, generator=random),
        "fixed_labels": ellipsoids(), "moving_labels": ellipsoids(shift),
        "fixed_points": points, "moving_points": points + 1.5,
        "fixed_spacing": torch.tensor([[1.0, 2.5, 0.8]]), "moving_spacing": torch.tensor([[1.2, 2.0, 0.9]]),
        "fixed_name": ["a"], "moving_name": ["b"],
    }  # fmt: skip


def smooth_flow(scale=6.0):
    noise = np.random.default_rng(4).normal(size=(3, *SIZE))
    flow = ndimage.gaussian_filter(noise, (0, 3, 3, 3))
    return torch.from_numpy(scale * flow / flow.std()).float()[None]


def no_flow():
    return torch.zeros(1, 3, *SIZE)


def test_sdlogj_adds_three_clips_and_leaves_two_voxels_out():
    flow = smooth_flow()
    field = flow[0].double().numpy()
    jacobian = np.zeros((3, 3, *SIZE))
    for axis in range(3):
        kernel = np.array([-0.5, 0, 0.5]).reshape([3 if other == axis else 1 for other in range(3)])
        for part in range(3):
            jacobian[part, axis] = ndimage.correlate(field[part], kernel, mode="constant", cval=0.0)
    inside = (jacobian + np.eye(3)[:, :, None, None, None])[:, :, 2:-2, 2:-2, 2:-2]
    determinant = (inside[0] * np.cross(inside[1], inside[2], axis=0)).sum(0)
    assert determinant.min() < -3 < 0  # so that the clip shows
    expected = np.log((determinant + 3).clip(0.000000001, 1000000000)).std()
    assert learn2reg_measures(pair(), flow, LABELS)["learn2reg_sdlogj"] == pytest.approx(expected, rel=1e-9)


def test_dice_and_labels_of_the_evaluator():
    flow, scans = smooth_flow(2.0), pair((2, -1, 3))
    fixed, moving = (scans[f"{role}_labels"][0, 0].numpy() for role in ("fixed", "moving"))
    identity = np.meshgrid(*(np.arange(side) for side in SIZE), indexing="ij")
    warped = ndimage.map_coordinates(moving, identity + flow[0].double().numpy(), order=0)
    dice = [2 * ((fixed == k) & (warped == k)).sum() / ((fixed == k).sum() + (warped == k).sum()) for k in (1, 2, 7)]
    assert learn2reg_measures(scans, flow, LABELS)["learn2reg_dice"] == pytest.approx(np.mean(dice))


def test_only_labels_that_both_scans_have_before_count():
    scans = pair()
    scans["moving_labels"] = scans["moving_labels"].where(scans["moving_labels"] != 7, 0)
    measures = learn2reg_measures(scans, no_flow(), LABELS)
    assert measures["learn2reg_dice"] == 1  # ours counts the one that is lost
    assert pair_measures(scans, scans["moving"], no_flow(), {1: "a", 2: "b", 7: "c"})["dice_mean"] < 0.7


@pytest.mark.parametrize(
    ("shift", "expected"),  # by the package surface-distance 0.1, which the evaluator uses, labels 1, 2 and 7
    [
        ((2, -1, 3), (3.0, 3.0, 3.1622776601683795)),
        ((-1, 2, 0), (2.0, 2.0, 1.7320508075688772)),
        ((0, 0, 5), (4.123105625617661, 4.242640687119285, 4.47213595499958)),
    ],
)
def test_hd95_is_that_of_surface_elements_in_voxels(shift, expected):
    for label, distance in zip((1, 2, 7), expected, strict=True):
        measures = learn2reg_measures(pair(shift), no_flow(), [label])
        assert measures["learn2reg_hd95_voxels"] == pytest.approx(distance, rel=1e-6)


def test_landmarks_sample_the_field_by_cubic_splines():
    flow, scans = smooth_flow(), pair()
    fixed, moving = scans["fixed_points"][0].double().numpy(), scans["moving_points"][0].double().numpy()
    displaced = [ndimage.map_coordinates(part, fixed.transpose()) for part in flow[0].double().numpy()]
    expected = np.linalg.norm((fixed + np.array(displaced).transpose() - moving) * (1.2, 2.0, 0.9), axis=1).mean()
    assert learn2reg_measures(scans, flow, LABELS)["learn2reg_tre_mm"] == pytest.approx(expected, rel=1e-5)


def test_missing_landmarks_are_left_out():
    whole, scans = pair(), pair()
    scans["fixed_points"][0, 0, 1] = math.nan
    scans["moving_points"][0, 3] = math.nan
    for role in ("fixed_points", "moving_points"):
        whole[role] = whole[role][:, [1, 2, 4, 5]]
    one, other = (learn2reg_measures(each, smooth_flow(), LABELS)["learn2reg_tre_mm"] for each in (scans, whole))
    assert one == other


def test_what_cannot_be_known_is_nan():
    scans = pair()
    bare = {key: value for key, value in scans.items() if "labels" not in key and "points" not in key}
    measures = learn2reg_measures(bare, smooth_flow(), LABELS)
    assert [name for name, value in measures.items() if not math.isnan(value)] == ["learn2reg_sdlogj"]
    measures = learn2reg_measures(scans, smooth_flow() * math.inf, LABELS)
    assert all(math.isnan(value) for value in measures.values())
    out = no_flow() + 100  # every label leaves the volume
    measures = learn2reg_measures(scans, out, LABELS)
    assert measures["learn2reg_dice"] == 0
    assert math.isnan(measures["learn2reg_hd95_voxels"])
