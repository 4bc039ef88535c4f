import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from regcascade.geometry.warp import jacobian_det
from regcascade.metrics.jacobian import folding_percent, jacobian_measures
from regcascade.metrics.landmarks import landmark_distance_mm, landmark_distance_voxels
from regcascade.metrics.overlap import dice_per_label, mean_dice
from regcascade.metrics.pair import label_keys, pair_measures
from regcascade.metrics.surface import surface_measures

SIZE = (23, 17, 30)
SPACING = (1.0, 2.5, 0.8)


def ellipsoids(shift=(0, 0, 0), size=SIZE):
    """Labels 1, 2 and 7 as ellipsoids, the first two touching, moved by `shift` voxels."""
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in size), indexing="ij"), axis=-1) - np.array(shift)
    labels = np.zeros(size, dtype=np.int64)
    for label, centre, radii in [
        (1, (8, 8, 9), (5, 5, 6)),
        (2, (14, 9, 14), (6, 4, 5)),
        (7, (9, 7, 22), (3, 4, 3)),
    ]:
        labels[(((grid - centre) / radii) ** 2).sum(-1) <= 1] = label
    return torch.from_numpy(labels)[None, None]


def boxes(shift=(0, 0, 0), size=SIZE):
    """One box of 6 x 5 x 8 voxels of label 3, moved by `shift` voxels."""
    labels = torch.zeros(1, 1, *size, dtype=torch.long)
    x, y, z = (start + by for start, by in zip((5, 4, 7), shift, strict=True))
    labels[0, 0, x : x + 6, y : y + 5, z : z + 8] = 3
    return labels


def random_flow(batch=2, size=(6, 5, 7), scale=0.4, dtype=torch.float64):
    return scale * torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(3), dtype=dtype)


def determinants(flow):
    """A 3x3 determinant per voxel of the volume less its last planes, in float64."""
    flow = flow.double().numpy()
    values = []
    for x, y, z in itertools.product(*(range(side - 1) for side in flow.shape[1:])):
        here = flow[:, x, y, z]
        columns = [flow[:, x + 1, y, z] - here, flow[:, x, y + 1, z] - here, flow[:, x, y, z + 1] - here]
        values.append(np.linalg.det(np.eye(3) + np.stack(columns, axis=1)))
    return np.array(values)


def surface_hd95(a, b, spacing):
    """Both directed 95th percentiles from distance maps of the surfaces; the larger one."""
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    percentiles = []
    for here, there in (surfaces, surfaces[::-1]):
        distances = ndimage.distance_transform_edt(~there, sampling=spacing)
        percentiles.append(np.percentile(distances[here], 95))
    return max(percentiles)


def itk_overlap(a, b):
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(volume[0].numpy()) for volume in (a, b)))
    return overlap


def jaccard(moved, fixed, labels):
    """Jaccard of each label, as a row of a table has it."""
    pair = {"fixed": fixed.float(), "fixed_labels": fixed}
    flow = torch.zeros(1, 3, *fixed.shape[2:])
    measures = pair_measures(pair, moved.float(), flow, {label: str(label) for label in labels}, moved)
    return [measures[f"jaccard_{label}"] for label in labels]


def test_dice_and_jaccard_agree_with_simpleitk():
    moved = torch.cat([ellipsoids((2, -1, 3)), ellipsoids((-1, 2, 0))])
    fixed = torch.cat([ellipsoids(), ellipsoids((0, 0, 2))])
    labels = [7, 1, 2]
    itk = [itk_overlap(moved[item], fixed[item]) for item in range(2)]
    expected = [[overlap.GetDiceCoefficient(label) for label in labels] for overlap in itk]
    np.testing.assert_allclose(dice_per_label(moved, fixed, labels), expected, rtol=1e-6)
    np.testing.assert_allclose(mean_dice(moved, fixed, labels), np.mean(expected, axis=1), rtol=1e-6)
    expected = [[overlap.GetJaccardCoefficient(label) for label in labels] for overlap in itk]
    for item in range(2):
        found = jaccard(moved[item : item + 1], fixed[item : item + 1], labels)
        np.testing.assert_allclose(found, expected[item], rtol=1e-6)


@pytest.mark.parametrize(("shift", "expected"), [((0, 0, 0), 1), ((3, 0, 0), 3 / 6), ((0, 0, -2), 6 / 8)])
def test_overlap_of_a_moved_box(shift, expected):
    assert dice_per_label(boxes(shift), boxes(), [3]).item() == pytest.approx(expected)
    shared = 240 * expected  # of 240 voxels each
    assert jaccard(boxes(shift), boxes(), [3])[0] == pytest.approx(shared / (480 - shared))


def test_dice_of_a_missing_label():
    moved, fixed = boxes(), boxes()
    fixed[fixed == 3] = 4
    dice = dice_per_label(moved, fixed, [3, 4, 5])
    assert dice[0, :2].tolist() == [0, 0]
    assert dice[0, 2].isnan()
    assert jaccard(moved, fixed, [3, 4, 5]) == pytest.approx([0, 0, math.nan], nan_ok=True)
    assert mean_dice(moved, fixed, [3, 4, 5]).item() == 0
    assert mean_dice(boxes(), boxes(), [3, 5]).item() == 1
    assert mean_dice(moved, fixed, [5]).isnan().all()
    assert mean_dice(moved, fixed, []).isnan().all()


def test_dice_leaves_other_values_alone():
    fixed = boxes().to(torch.int16)
    fixed[0, 0, 0, 0, :4] = torch.tensor([-1, 2, 300, 32000], dtype=torch.int16)
    assert dice_per_label(fixed, fixed, [2, 3]).tolist() == [[1, 1]]


@pytest.mark.parametrize("labels", [[0], [1, 0], [-1]])
def test_background_is_no_label(labels):
    with pytest.raises(ValueError, match="background"):
        dice_per_label(boxes(), boxes(), labels)
    with pytest.raises(ValueError, match="background"):
        surface_measures(boxes(), boxes(), labels, torch.ones(1, 3))


def test_hd95_agrees_with_distance_maps():
    moved = torch.cat([ellipsoids((2, -1, 3)), ellipsoids((-1, 2, 0))])
    fixed = torch.cat([ellipsoids(), ellipsoids((0, 0, 2))])
    spacing = torch.tensor([SPACING, (0.7, 0.7, 3.0)])
    labels = [2, 7, 1]
    expected = [
        [
            surface_hd95(moved[i, 0].numpy() == label, fixed[i, 0].numpy() == label, spacing[i].tolist())
            for label in labels
        ]
        for i in range(2)
    ]
    np.testing.assert_allclose(surface_measures(moved, fixed, labels, spacing)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(("shift", "expected"), [((0, 0, 0), 0), ((2, 0, 0), 2.0), ((0, 2, 0), 5.0), ((0, 0, 2), 1.6)])
def test_hd95_of_a_moved_box_is_in_mm(shift, expected):
    assert surface_measures(boxes(shift), boxes(), [3], torch.tensor([SPACING]))[0].item() == pytest.approx(expected)


def test_hd95_of_a_missing_label_is_nan():
    fixed = ellipsoids()
    moved = fixed.where(fixed != 2, 0)
    distance = surface_measures(moved, fixed, [1, 2, 5], torch.tensor([SPACING]))[0]
    assert distance[0].isnan().tolist() == [False, True, True]
    distance = surface_measures(fixed, moved, [1, 2, 5], torch.tensor([SPACING]))[0]
    assert distance[0].isnan().tolist() == [False, True, True]


def test_jacobian_measures_agree_with_a_loop():
    flow = random_flow()
    expected = [determinants(item) for item in flow]
    assert all(0 < (values <= 0).mean() < 1 for values in expected)
    np.testing.assert_allclose(folding_percent(flow), [100 * (values <= 0).mean() for values in expected], rtol=1e-6)
    measures = jacobian_measures(flow)
    assert torch.equal(measures["folding_percent"], folding_percent(flow))
    np.testing.assert_allclose(measures["jacobian_std"], [values.std() for values in expected], rtol=1e-10)
    logarithms = [np.log(np.maximum(values, 1e-9)) for values in expected]
    np.testing.assert_allclose(measures["sdlogj"], [values.std() for values in logarithms], rtol=1e-10)


def itk_determinants(flow, spacing):
    """SimpleITK's determinants of a flow as a field in mm, by central differences."""
    field = flow[0].permute(3, 2, 1, 0).double().numpy() * spacing
    image = sitk.GetImageFromArray(np.ascontiguousarray(field), isVector=True)
    image.SetSpacing(spacing)
    return sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).transpose(2, 1, 0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_determinants_of_affine_maps_agree_with_simpleitk(mirrored):
    matrix = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix[0, 0] -= 2 * mirrored
    grid = torch.stack(torch.meshgrid(*(torch.arange(side).double() for side in SIZE), indexing="ij"))
    flow = torch.einsum("ij,jxyz->ixyz", matrix, grid)[None]
    expected = itk_determinants(flow, SPACING)[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(jacobian_det(flow)[0, 1:, 1:, 1:], expected, rtol=1e-5)
    assert folding_percent(flow).item() == 100 * (expected <= 0).mean() == (100 if mirrored else 0)


def test_determinants_agree_with_simpleitk_on_a_finer_grid():
    """A forward difference is a central one on a grid twice as fine, if each derivative is of one coordinate."""
    fine = [2 * side - 1 for side in SIZE]
    curves = [torch.from_numpy(np.random.default_rng(a).normal(size=(3, side))) for a, side in enumerate(fine)]
    flow = sum(0.4 * curve.view(1, 3, *(-1 if a == b else 1 for b in range(3))) for a, curve in enumerate(curves))
    coarse = jacobian_det(flow[:, :, ::2, ::2, ::2])[0]
    expected = itk_determinants(2 * flow, tuple(side / 2 for side in SPACING))[1::2, 1::2, 1::2]  # in finer voxels
    assert 5 < folding_percent(flow[:, :, ::2, ::2, ::2]).item() < 95
    np.testing.assert_allclose(coarse, expected, rtol=1e-4, atol=1e-5)


def test_jacobian_measures_of_known_maps():
    index = torch.arange(8.0).view(1, 1, 8, 1, 1)
    scaled = torch.zeros(1, 3, 8, 5, 6)
    scaled[:, 0:1] = 0.25 * index
    mirrored = torch.zeros(1, 3, 8, 5, 6)
    mirrored[:, 0:1] = -2 * index
    collapsed = torch.zeros(1, 3, 8, 5, 6)
    collapsed[:, 0:1] = -index
    for flow, folded in [(scaled, 0), (mirrored, 100), (collapsed, 100)]:
        assert folding_percent(flow).item() == folded
        measures = jacobian_measures(flow)
        assert measures["jacobian_std"].item() == pytest.approx(0, abs=1e-6)
        assert measures["sdlogj"].item() == pytest.approx(0, abs=1e-5)


def test_jacobian_measures_do_not_lose_digits_in_half_precision():
    flow = random_flow(dtype=torch.float32).bfloat16()
    expected = jacobian_measures(flow.float())
    for name, values in jacobian_measures(flow).items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, expected[name])


def test_landmark_distance_of_a_translation():
    flow = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1).expand(2, 3, 9, 7, 8)
    fixed = torch.tensor([[2.0, 3.0, 4.0], [5.5, 2.25, 1.0]]).expand(2, 2, 3)
    reached = fixed + torch.tensor([1.0, -2.0, 0.5])
    spacing = torch.tensor([SPACING, (2.0, 1.0, 1.0)])
    np.testing.assert_allclose(landmark_distance_voxels(fixed, reached, flow), 0, atol=1e-5)
    away = reached + torch.tensor([3.0, 4.0, 0.0])
    np.testing.assert_allclose(landmark_distance_voxels(fixed, away, flow), 5, rtol=1e-5)
    expected = [math.hypot(3 * 1.0, 4 * 2.5), math.hypot(3 * 2.0, 4 * 1.0)]
    np.testing.assert_allclose(landmark_distance_mm(fixed, away, flow, spacing), expected, rtol=1e-5)
    # Forgetting the flow, or its sign, is not the same.
    np.testing.assert_allclose(landmark_distance_voxels(fixed, fixed, flow), math.sqrt(5.25), rtol=1e-5)


def test_missing_landmarks_are_left_out():
    flow = torch.zeros(3, 3, 9, 7, 8)
    fixed = torch.full((3, 3, 3), 2.0)
    moving = fixed.clone()
    moving[:, 0, 0] += 1
    moving[:, 1, 2] += 3
    moving[0, 1] = math.nan
    fixed[1, 0] = math.nan
    moving[2, :2] = math.nan
    fixed[2, 2] = math.nan
    voxels = landmark_distance_voxels(fixed, moving, flow)
    assert voxels[:2].tolist() == pytest.approx([0.5, 1.5])
    assert voxels[2].isnan()
    assert landmark_distance_mm(fixed, moving, flow, torch.full((3, 3), 2.0))[:2].tolist() == pytest.approx([1, 3])


def one_pair():
    """A box that moves by (2, 0, -1) voxels, with two landmarks on it."""
    fixed_labels, moving_labels = boxes(), boxes((2, 0, -1))
    points = torch.tensor([[[5.0, 4.0, 7.0], [10.0, 8.0, 14.0]]])
    return {
        "fixed": fixed_labels.float() / 3,
        "moving": moving_labels.float() / 3,
        "fixed_labels": fixed_labels,
        "moving_labels": moving_labels,
        "fixed_points": points,
        "moving_points": points + torch.tensor([2.0, 0.0, -1.0]),
        "fixed_spacing": torch.tensor([SPACING]),
        "moving_spacing": torch.tensor([SPACING]),
        "fixed_name": ["a"],
        "moving_name": ["b"],
    }


def the_flow():
    return torch.tensor([2.0, 0.0, -1.0]).view(1, 3, 1, 1, 1).expand(1, 3, *SIZE).clone()


def test_measures_of_a_perfect_registration():
    pair = one_pair()
    measures = pair_measures(pair, pair["fixed"], the_flow(), {3: "Left kidney", 4: "spleen"})
    assert list(measures) == [
        "dice_left_kidney", "dice_spleen", "dice_mean", "jaccard_left_kidney", "jaccard_spleen", "jaccard_mean", "cc",
        "landmark_distance_voxels", "landmark_distance_mm", "hd95_mm", "asd_mm_left_kidney", "asd_mm_spleen", "asd_mm",
        "folding_percent", "sdlogj", "jacobian_std", "displacement_mean_voxels", "displacement_max_voxels",
        "displacement_mean_mm", "displacement_max_mm",
    ]  # fmt: skip
    assert all(type(value) is float for value in measures.values())
    assert all(math.isnan(measures.pop(name)) for name in ("dice_spleen", "jaccard_spleen", "asd_mm_spleen"))
    perfect = dict.fromkeys(("dice_left_kidney", "dice_mean", "jaccard_left_kidney", "jaccard_mean", "cc"), 1)
    perfect |= dict.fromkeys(("displacement_mean_voxels", "displacement_max_voxels"), math.sqrt(5))
    perfect |= dict.fromkeys(("displacement_mean_mm", "displacement_max_mm"), math.hypot(2 * 1.0, 1 * 0.8))
    for name, value in measures.items():
        assert value == pytest.approx(perfect.get(name, 0), abs=1e-4), name


def test_measures_before_registration():
    pair = one_pair()
    measures = pair_measures(pair, pair["moving"], torch.zeros_like(the_flow()), {3: "box"})
    overlap = (4 * 5 * 7) / (6 * 5 * 8)
    assert measures["dice_box"] == pytest.approx(overlap)
    assert measures["landmark_distance_voxels"] == pytest.approx(math.sqrt(5), rel=1e-5)
    assert measures["landmark_distance_mm"] == pytest.approx(math.hypot(2, 0.8), rel=1e-5)
    mask = [pair[name][0, 0].numpy() == 3 for name in ("moving_labels", "fixed_labels")]
    assert measures["hd95_mm"] == pytest.approx(surface_hd95(*mask, SPACING), rel=1e-5)
    correlation = np.corrcoef(pair["fixed"].ravel(), pair["moving"].ravel())[0, 1]
    assert measures["cc"] == pytest.approx(correlation, abs=1e-3)


def test_measures_of_what_is_not_known_are_nan():
    pair = one_pair()
    full = pair_measures(pair, pair["moving"], the_flow(), {3: "box"})
    bare = {key: value for key, value in pair.items() if key in ("fixed", "moving")}
    measures = pair_measures(bare, pair["moving"], the_flow(), {3: "box"})
    assert list(measures) == list(full)
    unknown = {
        "dice_box", "dice_mean", "jaccard_box", "jaccard_mean", "landmark_distance_voxels", "landmark_distance_mm",
        "hd95_mm", "asd_mm_box", "asd_mm", "displacement_mean_mm", "displacement_max_mm",
    }  # fmt: skip
    assert {name for name, value in measures.items() if math.isnan(value)} == unknown
    del pair["fixed_spacing"], pair["moving_spacing"]
    measures = pair_measures(pair, pair["moving"], the_flow(), {3: "box"})
    assert {name for name, value in measures.items() if math.isnan(value)} == {
        "landmark_distance_mm", "hd95_mm", "asd_mm_box", "asd_mm", "displacement_mean_mm", "displacement_max_mm",
    }  # fmt: skip


def test_a_label_in_one_scan_only_counts_as_no_overlap_and_has_no_surface_distance():
    pair = one_pair()
    pair["moving_labels"] = torch.zeros_like(pair["moving_labels"])
    measures = pair_measures(pair, pair["moving"], the_flow(), {3: "box"})
    assert (measures["dice_box"], measures["dice_mean"], measures["jaccard_mean"]) == (0, 0, 0)
    assert all(math.isnan(measures[name]) for name in ("hd95_mm", "asd_mm_box", "asd_mm"))
    pair["fixed_labels"] = torch.zeros_like(pair["fixed_labels"])
    measures = pair_measures(pair, pair["moving"], the_flow(), {3: "box"})
    assert all(math.isnan(measures[name]) for name in ("dice_box", "dice_mean", "jaccard_mean", "hd95_mm", "asd_mm"))
    named, unnamed = (pair_measures(pair, pair["moving"], the_flow(), names) for names in ({3: "box"}, {}))
    assert set(named) - set(unnamed) == {"dice_box", "jaccard_box", "asd_mm_box"}


def test_a_flow_that_is_not_finite_has_no_measures():
    pair, flow = one_pair(), the_flow()
    flow[0, 1, 2, 3, 4] = math.nan
    measures = pair_measures(pair, pair["moving"], flow, {3: "box"})
    assert list(measures) == list(pair_measures(pair, pair["moving"], the_flow(), {3: "box"}))
    assert all(math.isnan(value) for value in measures.values())
    assert folding_percent(torch.cat([flow, the_flow()])).tolist() == pytest.approx([math.nan, 0], nan_ok=True)


def test_labels_without_names_go_by_their_numbers():
    pair = one_pair()
    measures = pair_measures(pair, pair["moving"], the_flow())
    assert measures["dice_3"] == 1
    assert [name for name in measures if name.startswith("dice")] == ["dice_3", "dice_mean"]
    moved_labels = pair["moving_labels"].where(pair["moving_labels"] != 3, 5)
    measures = pair_measures(pair, pair["moving"], the_flow(), moved_labels=moved_labels)
    assert [measures[name] for name in ("dice_3", "dice_5", "dice_mean")] == [0, 0, 0]


def test_measures_take_one_pair():
    pair = one_pair()
    with pytest.raises(ValueError, match="one pair at a time"):
        pair_measures(pair, *(volume.repeat(2, 1, 1, 1, 1) for volume in (pair["moving"], the_flow())))


def test_label_keys_are_fit_for_columns_and_never_collide():
    names = {1: "Left Kidney", 2: "V. cava (inf.)", 3: "mean", 4: "tumour", 5: "Tumour", 6: "--", 7: "9"}
    assert label_keys(names) == {
        1: "left_kidney", 2: "v_cava_inf", 3: "mean_3", 4: "tumour_4", 5: "tumour_5", 6: "6", 7: "9",
    }  # fmt: skip
