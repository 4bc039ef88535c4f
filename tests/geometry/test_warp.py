"""Values, gradients and precision of what samples a grid, against SciPy and loops in float64."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from regcascade.geometry.warp import compose, jacobian_det, resize_flow, sample_at, warp, warp_labels, warp_points
from regcascade.types import level_size

SIZE = (13, 10, 17)


@pytest.fixture
def several_threads():
    """A single volume is cut into as many slabs as there are threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def points_of(size):
    return np.stack(np.meshgrid(*(np.arange(side, dtype=float) for side in size), indexing="ij"))


def scipy_warp(image, flow, order=1):
    result = np.empty(image.shape)
    for item in range(image.shape[0]):
        coordinates = points_of(image.shape[2:]) + flow[item].numpy()
        for channel in range(image.shape[1]):
            values = image[item, channel].numpy()
            result[item, channel] = map_coordinates(values, coordinates, order=order, mode="nearest")
    return result


def linear_flow(matrix, offset, size):
    """The flow of p -> M p + offset."""
    points = points_of(size)
    moved = np.einsum("ij,jxyz->ixyz", matrix, points) + np.asarray(offset)[:, None, None, None]
    return torch.from_numpy(moved - points)[None]


def fractional_flow(size, batch=1, seed=0):
    """A flow that points between voxels and beyond every border, never close to where trilinear values kink."""
    generator = torch.Generator().manual_seed(seed)
    flow = torch.empty(batch, 3, *size, dtype=torch.float64)
    points = torch.from_numpy(points_of(size))
    for axis, side in enumerate(size):
        whole = torch.randint(-1, side, (batch, *size), generator=generator)
        fraction = 0.2 + 0.6 * torch.rand(batch, *size, generator=generator, dtype=torch.float64)
        flow[:, axis] = whole + fraction - points[axis]
    return flow


def test_warp_agrees_with_scipy(smooth_flow):
    image = torch.rand(2, 3, *SIZE, dtype=torch.float64)
    flow = smooth_flow(SIZE, amplitude=6)
    np.testing.assert_allclose(warp(image, flow).numpy(), scipy_warp(image, flow), atol=1e-12)


def test_warp_far_outside_takes_the_border(smooth_flow):
    image = torch.rand(2, 1, *SIZE, dtype=torch.float64)
    flow = smooth_flow(SIZE, amplitude=60)
    np.testing.assert_allclose(warp(image, flow).numpy(), scipy_warp(image, flow), atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 8])
def test_one_volume_in_slabs_agrees_with_scipy(smooth_flow, several_threads, threads):
    several_threads(threads)
    image = torch.rand(1, 2, *SIZE, dtype=torch.float64)
    flow = smooth_flow(SIZE, amplitude=6, batch=1).requires_grad_()
    moved = warp(image.requires_grad_(), flow)
    np.testing.assert_allclose(moved.detach().numpy(), scipy_warp(image.detach(), flow.detach()), atol=1e-12)
    slabs = torch.autograd.grad(moved.square().sum(), (image, flow))
    twice = warp(image.expand(2, -1, -1, -1, -1), flow.expand(2, -1, -1, -1, -1))
    whole = torch.autograd.grad(twice[0].square().sum(), (image, flow))
    torch.testing.assert_close(slabs, whole)


def test_labels_agree_with_scipy_nearest(smooth_flow):
    labels = torch.randint(0, 300, (2, 1, *SIZE), dtype=torch.int32)
    flow = smooth_flow(SIZE, amplitude=6)
    # Where a coordinate lies half-way, either neighbour is nearest.
    decided = ((flow - flow.floor() - 0.5).abs() > 1e-5).all(1, keepdim=True).numpy()
    moved = warp_labels(labels, flow.float())
    assert moved.dtype == torch.int32
    np.testing.assert_array_equal(moved.numpy()[decided], scipy_warp(labels, flow, order=0)[decided])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_labels_keep_their_type_and_values(dtype):
    labels = torch.randint(0, 200, (2, 1, *SIZE)).to(dtype)
    moved = warp_labels(labels, torch.zeros(2, 3, *SIZE))
    assert moved.dtype == dtype
    assert torch.equal(moved, labels)


def test_compose_agrees_with_scipy(smooth_flow):
    first, then = smooth_flow(SIZE, 4, seed=1), smooth_flow(SIZE, 3, seed=2)
    expected = then.numpy() + scipy_warp(first, then)
    np.testing.assert_allclose(compose(first, then).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(13, 10, 17), (16, 12, 8), (5, 6, 7)])
@pytest.mark.parametrize("level", [1, 2])
def test_resize_flow_agrees_with_scipy(smooth_flow, size, level):
    flow = smooth_flow(level_size(size, level), amplitude=3)
    coordinates = (points_of(size) - (2**level - 1) / 2) / 2**level
    expected = [
        [2**level * map_coordinates(channel, coordinates, order=1, mode="nearest") for channel in item]
        for item in flow.numpy()
    ]
    large = resize_flow(flow, size, level)
    assert large.dtype == torch.float64
    np.testing.assert_allclose(large.numpy(), expected, atol=1e-12)


def test_resize_flow_leaves_the_full_level_alone(smooth_flow):
    flow = smooth_flow(SIZE)
    assert resize_flow(flow, SIZE, 0) is flow


def test_resize_flow_refuses_another_size(smooth_flow):
    with pytest.raises(ValueError, match=r"level 1 of a \(13, 10, 17\) grid has sides \(7, 5, 9\)"):
        resize_flow(smooth_flow((6, 5, 8)), SIZE, 1)


@pytest.mark.usefixtures("unchecked")
def test_warp_refuses_another_size():
    with pytest.raises(ValueError, match=r"\(4, 5, 6\).*\(4, 5, 7\)"):
        warp(torch.zeros(1, 1, 4, 5, 6), torch.zeros(1, 3, 4, 5, 7))


def test_jacobian_determinant_agrees_with_a_loop(smooth_flow):
    size = (5, 7, 4)
    flow = smooth_flow(size, amplitude=3)
    expected = np.empty((2, 4, 6, 3))
    moved = points_of(size) + flow.numpy()
    for item, *p in np.ndindex(expected.shape):
        here = moved[(item, slice(None), *p)]
        columns = []
        for axis in range(3):
            neighbour = list(p)
            neighbour[axis] += 1
            columns.append(moved[(item, slice(None), *neighbour)] - here)
        expected[(item, *p)] = np.linalg.det(np.stack(columns, axis=1))
    np.testing.assert_allclose(jacobian_det(flow).numpy(), expected, atol=1e-12)


def test_jacobian_determinant_of_a_linear_map():
    matrix = np.eye(3) + 0.3 * np.random.default_rng(0).standard_normal((3, 3))
    determinant = jacobian_det(linear_flow(matrix, (3, 1, -2), SIZE))
    np.testing.assert_allclose(determinant.numpy(), np.linalg.det(matrix), atol=1e-10)


def test_jacobian_determinant_of_a_mirror_is_negative():
    mirror = linear_flow(np.diag([1, -1, 1]), (0, SIZE[1] - 1, 0), SIZE)
    np.testing.assert_allclose(jacobian_det(mirror).numpy(), -1)


def test_sample_at_agrees_with_scipy(smooth):
    volume = smooth(SIZE, channels=2)
    points = torch.rand(2, 9, 3, dtype=torch.float64) * torch.tensor([16.0, 13, 20]) - 2  # some outside
    points[0, 4, 1] = points[1, 0] = float("nan")
    values = sample_at(volume, points)
    assert values.shape == (2, 9, 2)
    missing = torch.zeros(2, 9, dtype=torch.bool)
    missing[0, 4] = missing[1, 0] = True
    assert torch.equal(values.isnan(), missing[..., None].expand(-1, -1, 2))
    for item in range(2):
        there = ~missing[item]
        for channel in range(2):
            expected = map_coordinates(
                volume[item, channel].numpy(), points[item, there].T.numpy(), order=1, mode="nearest"
            )
            np.testing.assert_allclose(values[item, there, channel].numpy(), expected, atol=1e-12)


def test_warp_points_adds_the_flow_where_they_are(smooth_flow):
    flow = smooth_flow(SIZE, 3)
    voxels = torch.tensor([[[0, 0, 0], [12, 9, 16], [4, 7, 2]], [[1, 2, 3], [5, 5, 5], [11, 0, 8]]])
    points = voxels.double()
    points[1, 2] = float("nan")
    moved = warp_points(points, flow)
    assert moved.dtype == torch.float64
    for item in range(2):
        for k in range(3):
            x, y, z = voxels[item, k]
            expected = points[item, k] + flow[item, :, x, y, z]
            torch.testing.assert_close(moved[item, k], expected, equal_nan=True)


def test_missing_points_send_no_nan_into_the_flow(smooth_flow):
    flow = smooth_flow(SIZE).requires_grad_()
    points = torch.full((2, 2, 3), 3.3, dtype=torch.float64)
    points[0, 1] = float("nan")
    warp_points(points, flow).nansum().backward()
    assert flow.grad is not None and flow.grad.isfinite().all()


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_warp(several_threads, threads):
    several_threads(threads)
    size = (4, 2, 2)
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    flow = fractional_flow(size).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


def test_gradients_of_compose():
    size = (3, 2, 2)
    first = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    then = fractional_flow(size, batch=2).requires_grad_()
    assert torch.autograd.gradcheck(compose, (first, then))


def test_gradients_of_resize_and_determinant():
    flow = torch.rand(1, 3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: resize_flow(f, (4, 5, 3), 1), (flow,))
    assert torch.autograd.gradcheck(jacobian_det, (flow,))


def test_autocast_changes_nothing(smooth, smooth_flow):
    image = smooth(SIZE).float()
    a, b = smooth_flow(SIZE, seed=1).float(), smooth_flow(SIZE, seed=2).float()
    points = torch.rand(2, 4, 3) * 9

    def run():
        return (
            warp(image, a), compose(a, b), resize_flow(a, (25, 19, 34), 1), jacobian_det(a),
            sample_at(image, points), warp_points(points, b),
        )  # fmt: skip

    plain = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run()
    for expected, result in zip(plain, mixed, strict=True):
        assert result.dtype == torch.float32
        assert torch.equal(result, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coordinates_of_a_half_precision_flow_are_float32(dtype):
    ramp = torch.arange(200.0).expand(1, 1, 2, 2, 200)
    flow = torch.full((1, 3, 2, 2, 200), 0.25, dtype=dtype)
    moved = warp(ramp, flow)
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved[..., :-1], ramp[..., :-1] + 0.25, rtol=0, atol=1e-4)


def test_linear_labels_take_the_largest_share_as_one_hot_volumes_do():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 1, 7, 9, 8), generator=generator) ** 2
    flow = 1.5 * torch.randn(2, 3, 7, 9, 8, generator=generator)
    values = torch.tensor([0, 1, 4, 9])
    shares = warp((labels == values.view(1, 4, 1, 1, 1)).float(), flow)
    moved = warp_labels(labels, flow, "linear")
    assert moved.dtype == labels.dtype
    assert torch.equal(moved, values[shares.argmax(1, keepdim=True)])
    assert (moved != warp_labels(labels, flow)).any()


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_labels_move_by_whole_voxels_whatever_the_interpolation(interpolation):
    labels = torch.randint(-1, 5, (1, 1, 6, 7, 8), generator=torch.Generator().manual_seed(1))
    flow = torch.zeros(1, 3, 6, 7, 8)
    assert torch.equal(warp_labels(labels, flow, interpolation), labels)
    flow[:, 1] = 2
    assert torch.equal(warp_labels(labels, flow, interpolation)[:, :, :, :-2], labels[:, :, :, 2:])


def test_other_label_interpolations_are_refused():
    with pytest.raises(ValueError, match="nearest or linear"):
        warp_labels(torch.zeros(1, 1, 4, 4, 4, dtype=torch.long), torch.zeros(1, 3, 4, 4, 4), "cubic")
