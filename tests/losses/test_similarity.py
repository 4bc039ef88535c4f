import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from regcascade.losses.similarity import (
    SIMILARITIES,
    CorrelationLoss,
    LocalCorrelationLoss,
    MindLoss,
    MutualInformationLoss,
)
from regcascade.metrics.correlation import correlation_coefficient

SIZE = (9, 6, 7)


def images(seed=0, batch=2, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, *size, generator=generator, dtype=dtype)


def printed_correlation(a, b, epsilon=1e-6):
    """Eqs. 7 and 8 as printed, in float64, with epsilon added to the variances."""
    a, b = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()

    def covariance(u, v):
        return (u * v).sum() / u.size - u.sum() * v.sum() / u.size**2

    return covariance(a, b) / math.sqrt((covariance(a, a) + epsilon) * (covariance(b, b) + epsilon))


def local_correlation(a, b, kernel_size, min_variance):
    """Mean squared correlation in windows that reach over the border into zeros."""
    half, count = kernel_size // 2, kernel_size**3
    a, b = np.pad(a, half), np.pad(b, half)
    values = []
    for x, y, z in itertools.product(*(range(side - 2 * half) for side in a.shape)):
        window = np.s_[x : x + kernel_size, y : y + kernel_size, z : z + kernel_size]
        u, v = a[window] - a[window].mean(), b[window] - b[window].mean()
        variances = [max((w * w).sum() / count, min_variance) for w in (u, v)]
        values.append(((u * v).sum() / count) ** 2 / (variances[0] * variances[1]))
    return np.mean(values)


def mutual_information(a, b, num_bins, sigma_ratio):
    centres = np.linspace(0, 1, num_bins)
    sigma = sigma_ratio / (num_bins - 1)

    def weights(image):
        weight = np.exp(-((image.reshape(-1, 1) - centres) ** 2) / (2 * sigma**2))
        return weight / weight.sum(1, keepdims=True)

    wa, wb = weights(a), weights(b)
    joint = wa.T @ wb / len(wa)
    return (joint * np.log((joint + 1e-300) / np.outer(wa.mean(0), wb.mean(0)))).sum()


def mind_ssc(image, radius, dilation):
    """MIND-SSC voxel by voxel; an index beyond the border is the border's."""

    def at(volume, *index):
        return volume[tuple(min(max(i, 0), side - 1) for i, side in zip(index, volume.shape, strict=True))]

    steps = [sign * dilation * np.eye(3, dtype=int)[axis] for axis in range(3) for sign in (-1, 1)]
    pairs = [(a, b) for a, b in itertools.combinations(steps, 2) if not np.array_equal(a, -b)]
    voxels = list(np.ndindex(image.shape))
    squared = np.zeros((len(pairs), *image.shape))
    for number, (a, b) in enumerate(pairs):
        for voxel in voxels:
            squared[(number, *voxel)] = (at(image, *(voxel + a)) - at(image, *(voxel + b))) ** 2
    patch = list(itertools.product(range(-radius, radius + 1), repeat=3))
    distance = np.array(
        [[np.mean([at(one, *(np.array(voxel) + step)) for step in patch]) for voxel in voxels] for one in squared]
    ).reshape(squared.shape)
    spread = distance.mean(0)
    spread = spread.clip(spread.mean() / 1000, spread.mean() * 1000)
    return np.exp(-(distance - distance.min(0)) / spread)


@pytest.mark.parametrize(("radius", "dilation"), [(1, 2), (2, 1), (0, 1)])
def test_mind_agrees_with_loops(radius, dilation):
    a, b = images(0, 1, (6, 5, 7)), images(1, 1, (6, 5, 7))
    expected = [mind_ssc(each[0, 0].numpy(), radius, dilation) for each in (a, b)]
    loss = MindLoss(radius, dilation)
    np.testing.assert_allclose(loss.descriptors(a)[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(loss(a, b), ((expected[0] - expected[1]) ** 2).mean(), rtol=1e-10)


def test_mind_is_the_same_for_an_inverted_image_and_finite_for_a_constant_one():
    a = images(0, 1)
    np.testing.assert_allclose(MindLoss()(a, 1 - a), 0, atol=1e-20)
    flat = torch.full((1, 1, *SIZE), 0.3, requires_grad=True)
    MindLoss()(flat, images(1, 1, dtype=torch.float32)).backward()
    assert flat.grad.isfinite().all()


def test_correlation_agrees_with_the_printed_equations():
    a, b = images(0), images(1)
    b = b + 0.7 * a
    expected = [printed_correlation(a[item], b[item]) for item in range(2)]
    np.testing.assert_allclose(correlation_coefficient(a, b), expected, rtol=1e-12)


def test_correlation_agrees_with_numpy_where_epsilon_does_not_matter():
    a, b = images(0), images(1)
    expected = [np.corrcoef(a[item].ravel(), b[item].ravel())[0, 1] for item in range(2)]
    np.testing.assert_allclose(correlation_coefficient(a, b, epsilon=0.0), expected, rtol=1e-12)


def test_correlation_keeps_its_digits_far_from_zero():
    a = 10 + 0.01 * images(0, dtype=torch.float32)
    b = 10 + 0.01 * images(1, dtype=torch.float32) + 0.5 * (a - 10)
    expected = [printed_correlation(a[item] - 10, b[item] - 10) for item in range(2)]
    np.testing.assert_allclose(correlation_coefficient(a, b), expected, atol=1e-4)


def test_correlation_of_known_pairs():
    a = images(0)
    np.testing.assert_allclose(correlation_coefficient(a, 3 * a + 1), 1, atol=1e-4)
    np.testing.assert_allclose(correlation_coefficient(a, 1 - a), -1, atol=1e-4)
    assert correlation_coefficient(a, torch.full_like(a, 0.3)).abs().max() < 1e-9


def test_correlation_sees_a_flip():
    a = images(0)
    for axis in (2, 3, 4):
        assert (correlation_coefficient(a, a.flip(axis)) < 0.5).all()


def test_correlation_loss_is_the_mean_over_the_batch():
    a, b = images(0), images(1)
    expected = np.mean([1 - printed_correlation(a[item], b[item]) for item in range(2)])
    assert CorrelationLoss()(a, b).item() == pytest.approx(expected, rel=1e-12)


def test_local_correlation_agrees_with_a_loop():
    a, b = images(0, size=(6, 5, 4)), images(1, size=(6, 5, 4))
    a[0, 0, :3] = 0.25  # a flat part, where the floor decides
    expected = np.mean([local_correlation(a[i, 0].numpy(), b[i, 0].numpy(), 3, 1e-3) for i in range(2)])
    loss = LocalCorrelationLoss(kernel_size=3, min_variance=1e-3)
    assert loss(a, b).item() == pytest.approx(1 - expected, rel=1e-5)


def test_strided_local_correlation_agrees_with_numpy_on_cut_windows():
    a, b = images(0, size=(9, 6, 7)), images(1, size=(9, 6, 7))
    b = b + 0.5 * a

    def squared(item, centre):
        window = tuple(slice(max(c - 2, 0), c + 3) for c in centre)
        return np.corrcoef(a[item, 0][window].ravel(), b[item, 0][window].ravel())[0, 1] ** 2

    centres = [range(0, side, 3) for side in (9, 6, 7)]
    expected = np.mean([squared(item, centre) for item in range(2) for centre in itertools.product(*centres)])
    loss = LocalCorrelationLoss(kernel_size=5, stride=3)
    assert loss(a, b).item() == pytest.approx(1 - expected, rel=1e-9)


def test_strided_local_correlation_of_a_flat_region_is_none():
    flat, other = torch.full((1, 1, 12, 12, 12), 0.7), images(0, dtype=torch.float32)[:1]
    flat.requires_grad_()
    loss = LocalCorrelationLoss(stride=4)
    value = loss(flat, F.interpolate(other, size=(12, 12, 12)))
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-4)
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1 / 3, 0.7, 1.0])
@pytest.mark.parametrize("window", ["rectangular", "triangular", "gaussian"])
def test_local_correlation_of_flat_regions_is_not_made_of_rounding_errors(value, window):
    generator = torch.Generator().manual_seed(0)
    moved = torch.full((1, 1, 20, 21, 22), value) + 1e-7 * torch.randn(1, 1, 20, 21, 22, generator=generator)
    fixed = torch.full((1, 1, 20, 21, 22), 0.9)
    moved.requires_grad_()
    loss = LocalCorrelationLoss(kernel_size=9, kernel_type=window)
    value = loss(moved, fixed)
    value.backward()
    assert 0 <= value.item() <= 1 + 1e-5
    inner = moved.grad[..., 8:-8, 8:-8, 8:-8]
    assert moved.grad.isfinite().all()
    assert inner.abs().max() * moved.numel() < 10


def test_mutual_information_agrees_with_numpy():
    a, b = images(0), images(1)
    b = (0.6 * a + 0.4 * b).clamp(0, 1)
    expected = np.mean([mutual_information(a[i].numpy(), b[i].numpy(), 11, 0.4) for i in range(2)])
    loss = MutualInformationLoss(num_bins=11, sigma_ratio=0.4)
    assert loss(a, b).item() == pytest.approx(math.log(11) - expected, abs=1e-4)


def test_mutual_information_does_not_mind_inverted_intensities():
    a, b = images(0), images(1)
    loss = MutualInformationLoss()
    assert loss(1 - a, a).item() == pytest.approx(loss(a, a).item(), abs=1e-6)
    assert loss(a, a) < loss(b, a)


@pytest.mark.parametrize("name", SIMILARITIES.names())
def test_every_similarity_keeps_the_contract(name):
    a, b = images(0, dtype=torch.float32), images(1, dtype=torch.float32)
    loss = SIMILARITIES.build(name)
    value = loss(a, b)
    assert value.shape == () and value.dtype == torch.float32
    assert 0 <= loss(a, a) < value
    singles = torch.stack([loss(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(value, singles.mean())


@pytest.mark.parametrize("name", SIMILARITIES.names())
def test_every_similarity_is_float32_under_autocast(name):
    a, b = images(0, dtype=torch.float32), images(1, dtype=torch.float32)
    a = a.bfloat16().float()
    loss = SIMILARITIES.build(name)
    expected = loss(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(a.bfloat16(), b)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", SIMILARITIES.names())
def test_every_similarity_is_finite_where_there_is_nothing_to_see(name):
    for value in (0.0, 0.4):
        moved = torch.full((2, 1, 10, 11, 12), value, requires_grad=True)
        loss = SIMILARITIES.build(name)(moved, torch.full((2, 1, 10, 11, 12), value))
        loss.backward()
        assert loss.isfinite() and moved.grad.isfinite().all()


@pytest.mark.parametrize(
    "spec",
    [
        "cc",
        {"name": "lncc", "kernel_size": 3},
        {"name": "lncc", "kernel_size": 3, "stride": 2},
        {"name": "mi", "num_bins": 5},
        "mse",
    ],
)
def test_gradients_in_float64(spec):
    moved = (0.1 + 0.8 * images(0, size=(4, 3, 5))).requires_grad_()
    fixed = 0.1 + 0.8 * images(1, size=(4, 3, 5))
    loss = SIMILARITIES.build(spec)
    assert torch.autograd.gradcheck(lambda image: loss(image, fixed), moved, atol=1e-6)


def test_options_reach_the_loss():
    assert SIMILARITIES.build({"name": "cc", "epsilon": 0.5}).epsilon == 0.5
    assert SIMILARITIES.build({"name": "lncc", "kernel_size": 5}).loss.kernel_size == 5
    assert SIMILARITIES.build({"name": "mi", "num_bins": 7}).loss.num_bins == 7


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ncc", "cc, lncc, mi, mind, mse"),
        ({"name": "lncc", "kernelsize": 5}, "kernel_size"),
        ({"name": "mse", "epsilon": 1.0}, "no option 'epsilon'"),
        ({"kernel_size": 5}, "'name'"),
        ({"name": "lncc", "kernel_size": 4}, "odd"),
        ({"name": "lncc", "kernel_type": "round"}, "rectangular, triangular, gaussian"),
        ({"name": "lncc", "min_variance": 0.0}, "above 0"),
        ({"name": "lncc", "stride": 10}, "kernel_size=9"),
        ({"name": "lncc", "stride": 2, "kernel_type": "gaussian"}, "rectangular"),
        ({"name": "mi", "num_bins": 1}, "2 bins"),
        ({"name": "mi", "sigma_ratio": 0.0}, "above 0"),
    ],
)
def test_bad_specs_say_what_is_valid(spec, message):
    with pytest.raises(ValueError, match=message):
        SIMILARITIES.build(spec)
