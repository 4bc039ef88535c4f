"""TensorFlow's SAME rule and initial weights, against loops in float64."""

import math

import numpy as np
import pytest
import torch

from regcascade.networks.blocks import SameConv3d, UpConv3d, init_like_rcn, same_padding


def tensorflow_padding(side, kernel, stride):
    """Zeros before the first voxel, and the side of the output."""
    output = math.ceil(side / stride)
    return max((output - 1) * stride + kernel - side, 0) // 2, output


def same_convolution(image, kernel, bias, stride):
    """One item `(C, X, Y, Z)`; the kernel as TensorFlow lays it out, `(k, k, k, in, out)`."""
    k = kernel.shape[0]
    before, sides = zip(*(tensorflow_padding(n, k, stride) for n in image.shape[1:]), strict=True)
    result = np.zeros((kernel.shape[4], *sides)) + bias[:, None, None, None]
    for p in np.ndindex(*sides):
        for tap in np.ndindex(k, k, k):
            q = [stride * i + t - b for i, t, b in zip(p, tap, before, strict=True)]
            if all(0 <= i < n for i, n in zip(q, image.shape[1:], strict=True)):
                result[(slice(None), *p)] += image[(slice(None), *q)] @ kernel[tap]
    return result


def same_up_convolution(image, kernel, size):
    """The gradient of a SAME stride-2 convolution of a volume of `size`; the kernel is `(k, k, k, out, in)`."""
    k = kernel.shape[0]
    before, sides = zip(*(tensorflow_padding(n, k, 2) for n in size), strict=True)
    assert sides == image.shape[1:]
    result = np.zeros((kernel.shape[3], *size))
    for p in np.ndindex(*sides):
        for tap in np.ndindex(k, k, k):
            q = [2 * i + t - b for i, t, b in zip(p, tap, before, strict=True)]
            if all(0 <= i < n for i, n in zip(q, size, strict=True)):
                result[(slice(None), *q)] += kernel[tap] @ image[(slice(None), *p)]
    return result


@pytest.mark.parametrize("size", [(6, 5, 8), (7, 4, 1), (3, 2, 9)])
@pytest.mark.parametrize("kernel, stride", [(3, 2), (3, 1), (1, 1), (2, 2), (4, 2), (4, 1)])
def test_convolution_pads_as_tensorflow_does(size, kernel, stride):
    layer = SameConv3d(2, 3, kernel, stride).double()
    weights = torch.rand(kernel, kernel, kernel, 2, 3, dtype=torch.float64) - 0.5
    with torch.no_grad():
        layer.weight.copy_(weights.permute(4, 3, 0, 1, 2))
    image = torch.rand(2, 2, *size, dtype=torch.float64)
    result = layer(image).detach().numpy()
    for item in range(2):
        expected = same_convolution(image[item].numpy(), weights.numpy(), layer.bias.detach().numpy(), stride)
        np.testing.assert_allclose(result[item], expected, atol=1e-12)


def test_padding_on_an_even_side_comes_after():
    assert same_padding((8, 7, 1), kernel=3, stride=2) == [1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("size", [(6, 5, 8), (7, 4, 1), (3, 2, 9)])
def test_up_convolution_cuts_as_tensorflow_does(size):
    layer = UpConv3d(2, 3).double()
    weights = torch.rand(4, 4, 4, 3, 2, dtype=torch.float64) - 0.5
    with torch.no_grad():
        layer.weight.copy_(weights.permute(4, 3, 0, 1, 2))
    small = torch.rand(2, 2, *(-(-side // 2) for side in size), dtype=torch.float64)
    result = layer(small, size).detach().numpy()
    for item in range(2):
        expected = same_up_convolution(small[item].numpy(), weights.numpy(), size)
        np.testing.assert_allclose(result[item], expected, atol=1e-12)


def test_up_convolution_without_a_size_doubles():
    assert UpConv3d(2, 3)(torch.zeros(1, 2, 3, 4, 5)).shape == (1, 3, 6, 8, 10)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (SameConv3d(5, 7, 3), (3, 3, 3, 5, 7)),
        (SameConv3d(6, 4, 1), (1, 1, 1, 6, 4)),
        (UpConv3d(8, 3), (4, 4, 4, 3, 8)),
    ],
)
def test_initial_weights_fill_the_first_paper_s_range(layer, shape):
    init_like_rcn(layer)
    assert layer.weight.permute(2, 3, 4, 1, 0).shape == shape
    bound = math.sqrt(3 / math.prod(shape[:-1]))
    assert layer.weight.abs().max() <= bound
    if layer.weight.numel() > 100:
        assert layer.weight.abs().max() > 0.95 * bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    if layer.bias is not None:
        assert not layer.bias.any()
