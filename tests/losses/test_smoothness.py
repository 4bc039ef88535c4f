import itertools

import numpy as np
import pytest
import torch

from regcascade.losses.smoothness import REGULARIZERS, smoothness

SIZE = (7, 5, 6)


def random_flow(seed=0, batch=2, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator, dtype=dtype)


def coordinates(size=SIZE):
    return torch.stack(torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in size), indexing="ij"))


def printed_smoothness(flow):
    """Eq. 10, a voxel at a time."""
    total = 0.0
    size = flow.shape[1:]
    for voxel in itertools.product(*(range(side) for side in size)):
        for axis in range(3):
            neighbour = list(voxel)
            neighbour[axis] += 1
            if neighbour[axis] < size[axis]:
                total += ((flow[(slice(None), *neighbour)] - flow[(slice(None), *voxel)]) ** 2).sum()
    return total / (3 * np.prod(size))


def test_smoothness_agrees_with_the_printed_equation():
    flow = random_flow()
    expected = np.mean([printed_smoothness(item.numpy()) for item in flow])
    assert smoothness(flow).item() == pytest.approx(expected, rel=1e-12)


def test_smoothness_of_a_ramp_counts_every_voxel():
    for axis in range(3):
        flow = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
        flow[0, 1] = 2 * coordinates()[axis]
        expected = 4 * (SIZE[axis] - 1) / SIZE[axis] / 3
        assert smoothness(flow).item() == pytest.approx(expected, rel=1e-12)


def test_a_translation_is_smooth():
    flow = torch.full((2, 3, *SIZE), 4.5)
    for name in REGULARIZERS.names():
        assert REGULARIZERS.build(name)(flow) == 0


def test_bending_energy_of_an_affine_flow_is_zero():
    flow = torch.einsum("ij,jxyz->ixyz", random_flow()[0, :, 0, :3, 0], coordinates())[None]
    assert REGULARIZERS.build("bending")(flow).item() == pytest.approx(0, abs=1e-20)


def test_bending_energy_of_a_quadratic_flow():
    x, y, z = coordinates()
    flow = torch.stack([1.5 * x * x, 2 * x * y, 0.5 * y * z - z * z])[None]
    # Second derivatives: 3 along x; 2 mixed; 0.5 mixed and -2 along z. Mixed ones count twice.
    expected = (3**2 + 2 * 2**2 + 2 * 0.5**2 + 2**2) / 3
    assert REGULARIZERS.build("bending")(flow).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_every_regularizer_keeps_the_contract(name):
    flow = random_flow(dtype=torch.float32)
    regularizer = REGULARIZERS.build({"name": name})
    value = regularizer(flow)
    assert value.shape == () and value.dtype == torch.float32
    torch.testing.assert_close(value, torch.stack([regularizer(item[None]) for item in flow]).mean())
    half = flow.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = regularizer(half)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, regularizer(half.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_gradients_in_float64(name):
    flow = random_flow(batch=1, size=(5, 6, 5)).requires_grad_()
    assert torch.autograd.gradcheck(REGULARIZERS.build(name), flow, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("curvature", "bending, gradient"), ({"name": "gradient", "weight": 2.0}, "no option 'weight'")],
)
def test_bad_specs_say_what_is_valid(spec, message):
    with pytest.raises(ValueError, match=message):
        REGULARIZERS.build(spec)
