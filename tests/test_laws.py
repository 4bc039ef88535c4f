"""The laws that flows obey, and the conventions that everything else relies on."""

import numpy as np
import pytest
import torch

from regcascade.geometry.warp import compose, jacobian_det, resize_flow, warp, warp_labels, warp_points
from regcascade.types import level_size, size_of

SIZE = (15, 18, 11)


def points_of(size):
    return np.stack(np.meshgrid(*(np.arange(side, dtype=float) for side in size), indexing="ij"))


def linear_flow(matrix, offset, points):
    """The flow of p -> M p + offset at given points."""
    moved = np.einsum("ij,jxyz->ixyz", matrix, points) + np.asarray(offset)[:, None, None, None]
    return torch.from_numpy(moved - points)[None]


def around_the_centre(matrix, size):
    """The offset that makes p -> M p + offset keep the centre of the volume where it is."""
    centre = (np.asarray(size) - 1) / 2
    return centre - matrix @ centre


def inside(coordinates, size):
    """Whether each of `(3, X, Y, Z)` coordinates lies on the grid."""
    sides = np.asarray(size)[:, None, None, None]
    return torch.from_numpy(((coordinates >= 0) & (coordinates <= sides - 1)).all(0))


def some_matrix(seed, spread=0.06):
    return np.eye(3) + spread * np.random.default_rng(seed).uniform(-1, 1, (3, 3))


def test_convention_positive_flow_pulls_content_towards_the_origin():
    image = torch.zeros(1, 1, *SIZE)
    image[0, 0, 8, 9, 5] = 1
    for axis in range(3):
        flow = torch.zeros(1, 3, *SIZE)
        flow[:, axis] = 2
        expected = [8, 9, 5]
        expected[axis] -= 2
        assert (warp(image, flow) > 0.5).nonzero().tolist() == [[0, 0, *expected]]


def test_convention_channel_a_displaces_along_array_axis_a():
    ramps = torch.from_numpy(points_of(SIZE))[None]  # channel a holds the coordinate along axis a
    flow = torch.tensor([0.25, -0.5, 0.75], dtype=torch.float64).view(1, 3, 1, 1, 1).expand(1, 3, *SIZE)
    moved = warp(ramps, flow)[..., 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(moved, (ramps + flow)[..., 1:-1, 1:-1, 1:-1])


def test_convention_outside_is_the_border():
    ramps = torch.from_numpy(points_of(SIZE))[None]
    far = torch.full((1, 3, *SIZE), 99.0, dtype=torch.float64)
    last = torch.tensor(SIZE, dtype=torch.float64).view(1, 3, 1, 1, 1) - 1
    torch.testing.assert_close(warp(ramps, far), last.expand(1, 3, *SIZE))
    torch.testing.assert_close(warp(ramps, -far), torch.zeros(1, 3, *SIZE, dtype=torch.float64))


def test_convention_a_point_of_the_fixed_grid_goes_where_its_voxel_looks():
    moving = torch.zeros(1, 1, *SIZE)
    moving[0, 0, 6, 12, 3] = 1
    flow = torch.tensor([2.0, 5.0, -4.0]).view(1, 3, 1, 1, 1).expand(1, 3, *SIZE)
    (fixed_point,) = (warp(moving, flow) > 0.5).nonzero()[:, 2:]
    there = warp_points(fixed_point[None, None].float(), flow)
    torch.testing.assert_close(there, torch.tensor([[[6.0, 12, 3]]]))


def test_zero_flow_is_the_identity(smooth):
    image = smooth(SIZE, channels=2)
    zero = torch.zeros(2, 3, *SIZE, dtype=torch.float64)
    torch.testing.assert_close(warp(image, zero), image, rtol=0, atol=1e-13)
    labels = torch.randint(0, 9, (2, 1, *SIZE))
    assert torch.equal(warp_labels(labels, zero.float()), labels)


def test_zero_flow_is_the_identity_in_float32_at_full_size():
    image = torch.rand(1, 1, 6, 7, 128)
    torch.testing.assert_close(warp(image, torch.zeros(1, 3, 6, 7, 128)), image, rtol=0, atol=2e-5)


def test_zero_flow_is_neutral_in_composition(smooth_flow):
    flow = smooth_flow(SIZE)
    zero = torch.zeros_like(flow)
    torch.testing.assert_close(compose(flow, zero), flow)
    torch.testing.assert_close(compose(zero, flow), flow, rtol=0, atol=0)


def test_one_warp_with_the_composition_equals_two(smooth, smooth_flow):
    size = (21, 25, 19)
    image = smooth(size)
    first, then = smooth_flow(size, 2, seed=1), smooth_flow(size, 2, seed=2)
    twice = warp(warp(image, first), then)

    def error(flow):
        return (warp(image, flow) - twice)[..., 4:-4, 4:-4, 4:-4].abs()

    once = error(compose(first, then))
    assert once.max() < 0.15 and once.mean() < 0.02  # what linear interpolation loses
    for wrong in (compose(then, first), first + then, first + warp(then, first)):
        assert error(wrong).mean() > 2 * once.mean()


def test_composition_of_linear_maps_is_exact():
    points = points_of(SIZE)
    a, b = some_matrix(1), some_matrix(2)
    offset_a, offset_b = (
        around_the_centre(a, SIZE) + np.array([0.3, -0.2, 0.1]),
        around_the_centre(b, SIZE) + np.array([-0.4, 0.1, 0.2]),
    )
    first, then = linear_flow(a, offset_a, points), linear_flow(b, offset_b, points)
    expected = linear_flow(a @ b, a @ offset_b + offset_a, points)
    seen = inside(points + then[0].numpy(), SIZE)
    assert seen.double().mean() > 0.6
    torch.testing.assert_close(compose(first, then)[..., seen], expected[..., seen])


def test_composition_is_associative_on_linear_maps():
    points = points_of(SIZE)
    flows = [linear_flow(m, around_the_centre(m, SIZE), points) for m in map(some_matrix, (3, 4, 5))]
    a, b, c = flows
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    centre = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(left[centre], right[centre])


@pytest.mark.parametrize("size", [(21, 18, 27), (16, 24, 20)])
@pytest.mark.parametrize("level", [1, 2])
def test_an_enlarged_linear_map_is_that_linear_map(size, level):
    matrix, offset = some_matrix(6, spread=0.3), np.array([2.5, -1.5, 0.75])
    scale = 2**level
    # Voxel i of the level sits at `scale * i + (scale - 1) / 2` of the full grid.
    centres = scale * points_of(level_size(size, level)) + (scale - 1) / 2
    small = linear_flow(matrix, offset, centres) / scale
    large = resize_flow(small, size, level)
    assert size_of(large) == size
    points = points_of(size)
    last = centres[:, -1, -1, -1][:, None, None, None]
    interior = torch.from_numpy(((points >= (scale - 1) / 2) & (points <= last)).all(0))
    expected = linear_flow(matrix, offset, points)
    torch.testing.assert_close(large[..., interior], expected[..., interior])


def test_enlarging_twice_and_once_agree_on_linear_maps():
    size, matrix = (20, 17, 23), some_matrix(7)
    small = linear_flow(matrix, (1, 2, 3), 4 * points_of(level_size(size, 2)) + 1.5) / 4
    in_steps = resize_flow(resize_flow(small, level_size(size, 1), 1), size, 1)
    inner = (..., slice(3, -7), slice(3, -7), slice(3, -7))
    torch.testing.assert_close(in_steps[inner], resize_flow(small, size, 2)[inner])


def test_a_translation_has_determinant_one():
    flow = torch.tensor([1.5, -7.0, 0.25], dtype=torch.float64).view(1, 3, 1, 1, 1).expand(2, 3, *SIZE)
    torch.testing.assert_close(jacobian_det(flow), torch.ones(2, *(side - 1 for side in SIZE)).double())


def test_determinants_of_a_composition_multiply():
    points = points_of(SIZE)
    a, b = some_matrix(8), some_matrix(9)
    flows = [linear_flow(m, around_the_centre(m, SIZE), points) for m in (a, b)]
    inner = (..., slice(3, -3), slice(3, -3), slice(3, -3))
    determinant = jacobian_det(compose(*flows))[inner]
    expected = torch.full_like(determinant, np.linalg.det(a) * np.linalg.det(b))
    torch.testing.assert_close(determinant, expected)


def test_a_batch_gives_what_its_items_give_one_by_one(smooth, smooth_flow):
    image, a, b = smooth(SIZE, channels=2), smooth_flow(SIZE, 5, seed=1), smooth_flow(SIZE, 3, seed=2)
    points = torch.rand(2, 5, 3, dtype=torch.float64) * 10
    labels = torch.randint(0, 5, (2, 1, *SIZE))

    def run(item):
        return (
            warp(image[item], a[item]), compose(a[item], b[item]), jacobian_det(a[item]),
            resize_flow(a[item], (29, 36, 21), 1), warp_points(points[item], b[item]),
            warp_labels(labels[item], a[item].float()),
        )  # fmt: skip

    for k in range(2):
        item = slice(k, k + 1)
        for whole, alone in zip(run(slice(None)), run(item), strict=True):
            torch.testing.assert_close(whole[item], alone)
