import numpy as np
import pytest
import torch
from scipy import ndimage

from regcascade.losses.edge import edge_loss, sobel_magnitude

SIZE = (7, 5, 6)


def images(seed=0, batch=2, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, *size, generator=generator, dtype=dtype)


def scipy_magnitude(image, epsilon=1e-6):
    gradients = [ndimage.sobel(image, axis=axis, mode="nearest") for axis in range(3)]
    return np.sqrt(sum(gradient**2 for gradient in gradients) + epsilon)


def printed_edge_loss(moved, fixed):
    """Eq. 12: the 2-norm over the number of voxels."""
    difference = scipy_magnitude(fixed) - scipy_magnitude(moved)
    return np.linalg.norm(difference) / difference.size


def test_magnitude_agrees_with_scipy():
    image = images()
    expected = np.stack([scipy_magnitude(item[0].numpy())[None] for item in image])
    np.testing.assert_allclose(sobel_magnitude(image), expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_magnitude_of_a_ramp_is_32_per_voxel_inside(axis):
    shape = [1, 1, 1, 1, 1]
    shape[2 + axis] = SIZE[axis]
    ramp = torch.arange(SIZE[axis], dtype=torch.float64).view(shape).expand(1, 1, *SIZE)
    magnitude = sobel_magnitude(0.1 * ramp, epsilon=0.0)
    inner = magnitude.narrow(2 + axis, 1, SIZE[axis] - 2)
    np.testing.assert_allclose(inner, 3.2, rtol=1e-12)
    np.testing.assert_allclose(magnitude.select(2 + axis, 0), 1.6, rtol=1e-12)  # the border continues


def test_loss_agrees_with_the_printed_equation():
    moved, fixed = images(0), images(1)
    printed = np.mean([printed_edge_loss(moved[i, 0].numpy(), fixed[i, 0].numpy()) for i in range(2)])
    assert edge_loss(moved, fixed, form="printed").item() == pytest.approx(printed, rel=1e-9)
    root_mean_square = printed * np.sqrt(np.prod(SIZE))
    assert edge_loss(moved, fixed).item() == pytest.approx(255 / 128**1.5 * root_mean_square, rel=1e-9)


def test_both_forms_agree_on_the_data_of_the_papers():
    moved, fixed = (images(seed, batch=1, size=(128, 128, 128), dtype=torch.float32) for seed in (0, 1))
    printed = edge_loss(255 * moved, 255 * fixed, form="printed")
    torch.testing.assert_close(edge_loss(moved, fixed), printed, rtol=1e-4, atol=0)


def test_default_form_does_not_depend_on_the_size():
    image = torch.linspace(0, 1, 8, dtype=torch.float64).view(1, 1, 8, 1, 1)
    losses = [
        edge_loss(image.expand(1, 1, 8, *sides), image.flip(2).square().expand(1, 1, 8, *sides))
        for sides in ((5, 6), (9, 11))
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_gradient_is_finite_in_flat_regions_and_between_equal_images():
    for image in (torch.zeros(2, 1, *SIZE), torch.full((2, 1, *SIZE), 0.4), images(dtype=torch.float32)):
        for form in ("rms", "printed"):
            moved = image.clone().requires_grad_()
            loss = edge_loss(moved, image, form=form)
            loss.backward()
            assert loss.item() < 1e-5
            assert moved.grad.isfinite().all()
    moved = torch.zeros(2, 1, *SIZE, requires_grad=True)
    edge_loss(moved, images(dtype=torch.float32)).backward()
    assert moved.grad.isfinite().all()


def test_loss_sees_a_flip_and_not_an_offset():
    image = images()
    assert edge_loss(image + 0.3, image).item() < 1e-6
    for axis in (2, 3, 4):
        assert edge_loss(image.flip(axis), image).item() > 0.1


def test_loss_is_float32_under_autocast():
    moved, fixed = images(0, dtype=torch.float32).bfloat16(), images(1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = edge_loss(moved, fixed)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, edge_loss(moved.float(), fixed), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["rms", "printed"])
def test_gradients_in_float64(form):
    moved, fixed = images(0, size=(4, 2, 3)).requires_grad_(), images(1, size=(4, 2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: edge_loss(a, b, form=form), (moved, fixed), atol=1e-6)


def test_unknown_form_says_what_is_valid():
    with pytest.raises(ValueError, match="rms, printed"):
        edge_loss(images(), images(), form="mean")
