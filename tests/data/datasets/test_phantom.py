"""The phantom: known correspondence, determinism, and the papers' difficulty before registration."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from regcascade.data.datasets.phantom import WINDOW_HU, Phantom, SmoothMap
from regcascade.data.datasets.phantom_anatomy import LANDMARKS
from regcascade.geometry.warp import jacobian_det, warp, warp_labels, warp_points

ODD = (27, 33, 21)


@pytest.fixture(scope="module")
def cases():
    return Phantom(40, size=(24, 20, 20))


@pytest.fixture(scope="module")
def odd():
    return Phantom(4, size=ODD, first_index=3)


def _dice(a, b, label):
    first, second = a == label, b == label
    return 2 * (first & second).sum().item() / (first.sum() + second.sum()).item()


def _strong_map(scale=0.35):
    """Far stronger than any case's."""
    return SmoothMap(scale * np.random.default_rng(1).standard_normal((6, 4, 4)))


def test_a_case_has_what_the_networks_need(odd):
    case = odd[1]
    assert case.name == "phantom_0004"
    assert case.image.shape == case.labels.shape == (1, *ODD)
    assert case.image.dtype == torch.float32
    assert case.image.min() == 0
    assert case.image.max() == 1
    assert case.spacing == pytest.approx((360 / 27, 288 / 33, 288 / 21))
    assert case.points.shape == (6, 3)
    assert odd.label_names[1] == "liver"


def test_names_and_positions_behave_like_a_sequence(odd):
    assert len(odd) == 4
    assert odd.names == [case.name for case in odd]
    assert odd[-1].name == odd.names[-1]
    with pytest.raises(IndexError):
        odd[4]


def test_the_image_is_the_windowed_hounsfield_image(odd):
    hounsfield = odd.hounsfield(0)
    low, high = WINDOW_HU
    assert (high - low, (high + low) / 2) == (290, 120)
    torch.testing.assert_close(odd[0].image, ((hounsfield - low) / (high - low)).clamp(0, 1))
    assert hounsfield[0, 0, 0, 0] < -900  # air in the corner


def test_organs_differ_from_what_surrounds_them():
    phantom = Phantom(3, size=(40, 32, 32))
    for case, index in zip(phantom, range(3), strict=True):
        hounsfield = phantom.hounsfield(index)
        liver, spleen, right, left = (hounsfield[case.labels == label].median() for label in range(1, 5))
        body = hounsfield[(case.labels == 0) & (hounsfield > -200)].median()
        assert body < liver - 30
        assert liver < min(right, left) - 20
        assert abs(spleen - liver) < min(right, left) - liver


def test_axes_run_to_the_patients_left_back_and_head(cases):
    def centre(case, label):
        return (case.labels[0] == label).nonzero().float().mean(0)

    for case in itertools.islice(cases, 5):
        liver, spleen, right, left = (centre(case, label) for label in range(1, 5))
        assert liver[0] < spleen[0]
        assert right[0] < left[0]
        assert liver[1] < min(right[1], left[1])
        assert min(liver[2], spleen[2]) > max(right[2], left[2])


@pytest.mark.parametrize("size", [(16, 16, 16), (24, 20, 20), (17, 31, 22)])
def test_no_label_vanishes(size):
    for case in Phantom(10, size=size):
        assert torch.bincount(case.labels.flatten(), minlength=5).min() >= 10


def test_a_case_depends_on_seed_and_index_only():
    forward, backward = Phantom(3, size=ODD, seed=5), Phantom(2, size=ODD, seed=5, first_index=1)
    ahead = [forward[k] for k in range(3)]
    behind = [backward[k] for k in (1, 0)]
    for one, other in ((ahead[2], behind[0]), (ahead[1], behind[1])):
        assert one.name == other.name
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.points, other.points)
    assert not torch.equal(ahead[0].labels, ahead[1].labels)
    assert not torch.equal(ahead[0].labels, Phantom(1, size=ODD, seed=6)[0].labels)


def test_the_anatomy_is_the_same_at_any_size():
    coarse, fine = Phantom(3, size=(16, 20, 18)), Phantom(3, size=(48, 60, 54))
    # With odd ratios, the middle voxel of each 3 x 3 x 3 block is exactly where the coarse voxel is.
    assert torch.equal(coarse[2].labels, fine[2].labels[:, 1::3, 1::3, 1::3])
    torch.testing.assert_close(coarse[2].points, (fine[2].points - 1) / 3, atol=1e-5, rtol=0)
    flow = coarse.true_flow(0, 2)
    torch.testing.assert_close(flow, fine.true_flow(0, 2)[:, :, 1::3, 1::3, 1::3] / 3, atol=1e-5, rtol=0)


def test_difficulty_is_that_of_the_papers(cases):
    pairs = np.array(list(itertools.permutations(range(len(cases)), 2)))
    chosen = np.random.default_rng(0).choice(pairs, 200, replace=False).tolist()
    liver = np.array([_dice(cases[a].labels, cases[b].labels, 1) for a, b in chosen])
    assert 0.70 <= liver.mean() <= 0.79
    assert (liver < 0.7).mean() >= 1 / 3
    assert 0.02 <= (liver < 0.5).mean() <= 0.15


def test_maps_never_fold(cases):
    for fixed, moving in [(0, 1), (7, 3), (12, 30), (39, 21)]:
        assert jacobian_det(cases.true_flow(fixed, moving)).min() > 0.05


def test_a_map_stays_in_the_cube_and_its_inverse_is_exact():
    points = np.random.default_rng(2).uniform(-1, 1, (3, 500))
    strong = _strong_map()
    mapped = strong(points)
    assert np.abs(mapped).max() < 1
    assert np.abs(mapped - points).max() > 0.5
    np.testing.assert_allclose(strong.inverse(mapped), points, atol=1e-9)
    np.testing.assert_allclose(strong(strong.inverse(points)), points, atol=1e-9)


def test_the_determinant_of_even_a_strong_map_is_positive():
    points = np.random.default_rng(3).uniform(-0.999, 0.999, (3, 2000))
    strong, step = _strong_map(), 1e-6
    jacobian = [
        (strong(points + step * unit[:, None]) - strong(points - step * unit[:, None])) / (2 * step)
        for unit in np.eye(3)
    ]
    assert np.linalg.det(np.stack(jacobian).transpose(2, 0, 1)).min() > 0


def test_zero_coefficients_are_the_identity():
    points = np.random.default_rng(4).uniform(-1, 1, (3, 50))
    np.testing.assert_array_equal(SmoothMap(np.zeros((6, 4, 4)))(points), points)


def test_true_flow_has_voxels_and_no_self_displacement(odd):
    assert odd.true_flow(0, 1).shape == (1, 3, *ODD)
    assert odd.true_flow(0, 1).dtype == torch.float32
    torch.testing.assert_close(odd.true_flow(2, 2), torch.zeros(1, 3, *ODD), atol=1e-5, rtol=0)


def test_true_flow_leads_from_landmark_to_landmark(cases, odd):
    for phantom, fixed, moving in [(cases, 4, 9), (cases, 9, 4), (odd, 0, 3)]:
        moved = warp_points(phantom[fixed].points[None], phantom.true_flow(fixed, moving))
        assert (moved[0] - phantom[moving].points).norm(dim=-1).max() < 0.05


def test_landmarks_lie_in_the_liver():
    for case in Phantom(20, size=(24, 20, 20)):
        x, y, z = case.points.round().long().T
        assert (case.labels[0, x, y, z] == 1).all()
    assert LANDMARKS.shape == (3, 6)


def test_true_flow_points_into_the_moving_volume(odd):
    flow = odd.true_flow(1, 2)[0].numpy()
    target = np.indices(ODD) + flow
    for axis, side in enumerate(ODD):
        assert target[axis].min() >= -0.5
        assert target[axis].max() <= side - 0.5


def test_true_flow_registers_labels_and_images():
    phantom = Phantom(6, size=(40, 32, 33))
    for fixed, moving in [(0, 1), (2, 5), (4, 3)]:
        flow, target, source = phantom.true_flow(fixed, moving), phantom[fixed], phantom[moving]
        moved = warp_labels(source.labels[None], flow)[0]
        assert _dice(moved, target.labels, 1) > 0.9
        assert min(_dice(moved, target.labels, label) for label in (2, 3, 4)) > 0.8
        before = (source.image - target.image).abs().mean()
        assert (warp(source.image[None], flow)[0] - target.image).abs().mean() < 0.6 * before


def test_true_flow_agrees_with_an_independent_sampler(odd):
    """SciPy, in float64, with the convention written out: moved(p) = moving(p + flow(p))."""
    flow = odd.true_flow(0, 3)
    coordinates = np.indices(ODD) + flow[0].double().numpy()
    moved = map_coordinates(odd[3].labels[0].numpy(), coordinates, order=0, mode="nearest")
    assert _dice(torch.from_numpy(moved)[None], odd[0].labels, 1) > 0.88


def test_texture_belongs_to_the_tissue_and_noise_to_the_voxel():
    phantom = Phantom(1, size=(20, 20, 20))
    coarse, fine = (Phantom(1, size=(side,) * 3).hounsfield(0)[0] for side in (20, 60))
    liver = phantom[0].labels[0] == 1
    same_place = fine[1::3, 1::3, 1::3][liver]
    texture = np.corrcoef(coarse[liver], same_place)[0, 1]
    assert 0.2 < texture < 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count=0"),
        ({"count": 1, "size": (40, 15, 32)}, r"size=\[40, 15, 32\].*16 or more"),
        ({"count": 1, "size": (40, 32)}, "three sides"),
        ({"count": 1, "seed": -1}, "seed=-1"),
        ({"count": 1, "first_index": -1}, "first_index=-1"),
        ({"count": 1, "spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Phantom(**options)


def test_spacing_can_be_given():
    assert Phantom(1, size=(16, 16, 16), spacing_mm=(2, 3.5, 4))[0].spacing == (2.0, 3.5, 4.0)
