"""What a cascade returns: affine maps as flows, totals, what the losses read from them."""

import numpy as np
import pytest
import torch

from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import compose, jacobian_det, resize_flow, warp, warp_points
from regcascade.registration import Registration, Stage
from regcascade.types import level_size, size_of

SIZE = (13, 18, 15)
SMALL = (5, 8, 7)


def some_affine(batch=2, spread=0.08, offset=1.5, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(3) + spread * (2 * torch.rand(batch, 3, 3, generator=generator) - 1)
    shift = offset * (2 * torch.rand(batch, 3, generator=generator) - 1)
    return Affine(matrix.to(dtype), shift.to(dtype), size)


def stage(flow, totals, size=SIZE, affine=None):
    return Stage(flow=flow, totals=totals, moved=torch.zeros(2, 1, *size), affine=affine)


def test_displacement_agrees_with_a_loop():
    affine = some_affine(size=SMALL)
    flow = affine.displacement().numpy()
    assert flow.shape == (2, 3, *SMALL)
    centre = (np.array(SMALL) - 1) / 2
    for item in range(2):
        matrix, offset = affine.matrix[item].numpy(), affine.offset[item].numpy()
        for p in np.ndindex(SMALL):
            expected = matrix @ (p - centre) + centre + offset - p
            np.testing.assert_allclose(flow[(item, slice(None), *p)], expected, atol=1e-12)


def test_convention_row_i_of_the_matrix_makes_component_i():
    matrix = torch.eye(3)[None].clone()
    matrix[0, 0, 2] = 0.5  # x grows with z
    flow = Affine(matrix, torch.zeros(1, 3), SIZE).displacement()
    assert torch.equal(flow[:, 1:], torch.zeros_like(flow[:, 1:]))
    torch.testing.assert_close(flow[0, 0, 3, 4], 0.5 * (torch.arange(15.0) - 7))


def test_the_centre_moves_by_the_offset():
    affine = some_affine()
    centre = torch.tensor([[(side - 1) / 2 for side in SIZE]] * 2, dtype=torch.float64)[:, None]
    moved = warp_points(centre, affine.displacement())
    torch.testing.assert_close((moved - centre)[:, 0], affine.offset)


def test_its_determinant_is_that_of_the_matrix():
    affine = some_affine(spread=0.3)
    determinant = jacobian_det(affine.displacement())
    expected = affine.matrix.det().view(2, 1, 1, 1).expand_as(determinant)
    torch.testing.assert_close(determinant, expected)


@pytest.mark.parametrize("size", [SIZE, (16, 12, 20)])
@pytest.mark.parametrize("level", [1, 2])
def test_displacement_of_a_level_is_the_same_map(size, level):
    affine = some_affine(size=size)
    small = affine.displacement(level)
    assert size_of(small) == level_size(size, level)
    inner = (..., *(slice(2, 2**level * (side - 1)) for side in level_size(size, level)))
    large = resize_flow(small, size, level)
    torch.testing.assert_close(large[inner], affine.displacement()[inner])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_affine_followed_by_a_flow_agrees_with_a_loop(smooth_flow, level):
    affine = some_affine(size=SMALL)
    size = level_size(SMALL, level)
    flow = smooth_flow(size, amplitude=2)
    total = affine.followed_by(flow, level).numpy()
    scale = 2**level
    centre = (np.array(SMALL) - 1) / 2
    for item in range(2):
        matrix, offset = affine.matrix[item].numpy(), affine.offset[item].numpy()
        for p in np.ndindex(size):
            here = scale * np.array(p) + (scale - 1) / 2  # of the full grid
            there = here + scale * flow[(item, slice(None), *p)].numpy()
            expected = (matrix @ (there - centre) + centre + offset - here) / scale
            np.testing.assert_allclose(total[(item, slice(None), *p)], expected, atol=1e-12)


def test_affine_followed_by_a_flow_is_composition_in_the_interior(smooth_flow):
    affine = some_affine()
    flow = smooth_flow(SIZE, amplitude=2)
    inner = (..., slice(2, -2), slice(2, -2), slice(2, -2))
    dense = compose(affine.displacement(), flow)
    torch.testing.assert_close(affine.followed_by(flow)[inner], dense[inner])


def test_affine_gradients():
    matrix = some_affine().matrix.requires_grad_()
    offset = some_affine().offset.requires_grad_()
    flow = torch.rand(2, 3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, b, f: Affine(m, b, (3, 5, 4)).followed_by(f, level=1), (matrix, offset, flow)
    )


def test_affine_coordinates_stay_float32_under_autocast(smooth_flow):
    affine = some_affine(dtype=torch.float32)
    flow = smooth_flow(SIZE, amplitude=5).float()
    plain = affine.followed_by(flow)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = affine.followed_by(flow)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)


def test_a_stage_after_a_stage_composes_at_each_level(smooth_flow):
    half = level_size(SIZE, 1)
    before = stage(smooth_flow(SIZE), {0: smooth_flow(SIZE, seed=1), 1: smooth_flow(half, seed=2)})
    assert before.total is before.totals[0]
    flow, small = smooth_flow(SIZE, seed=3), smooth_flow(half, seed=4)
    expected = flow + warp(before.totals[0], flow)
    torch.testing.assert_close(before.followed_by(flow), expected)
    expected = small + warp(before.totals[1], small)
    torch.testing.assert_close(before.followed_by(small, level=1), expected)


def test_a_stage_after_the_affine_one_is_exact_up_to_the_border(smooth_flow):
    affine = some_affine()
    before = stage(affine.displacement(), {0: affine.displacement()}, affine=affine)
    flow = smooth_flow(SIZE)
    torch.testing.assert_close(before.followed_by(flow), affine.followed_by(flow))


def test_a_registration_reads_its_last_stage(smooth_flow):
    affine = some_affine()
    first = stage(affine.displacement(), {0: affine.displacement()}, affine=affine)
    quarter = smooth_flow(level_size(SIZE, 2), seed=7)
    second = stage(smooth_flow(SIZE, seed=5), {0: smooth_flow(SIZE, seed=6), 2: quarter})
    moving = torch.zeros(2, 1, *SIZE)
    registration = Registration(moving=moving, stages=(first, second), supervised=(second,))
    assert registration.flow is second.totals[0]
    assert registration.moved is second.moved
    assert registration.affine is affine
    assert registration.deformable_stages == (second,)
    assert registration.enlarged_total(0) is second.totals[0]
    torch.testing.assert_close(registration.enlarged_total(2), resize_flow(quarter, SIZE, 2))
    with pytest.raises(ValueError, match=r"no field at level 1 .* only at \[0, 2\]"):
        registration.enlarged_total(1)


def test_smoothness_need_not_punish_the_affine_part():
    affine = some_affine()
    only = stage(affine.displacement(), {0: affine.displacement()}, affine=affine)
    registration = Registration(torch.zeros(2, 1, *SIZE), (only,), (only,))
    rest = registration.without_affine(registration.flow)
    torch.testing.assert_close(rest, torch.zeros_like(rest))


def test_without_an_affine_stage_a_flow_is_left_as_it_is(smooth_flow):
    flow = smooth_flow(SIZE)
    only = stage(flow, {0: flow})
    registration = Registration(torch.zeros(2, 1, *SIZE), (only,), (only,))
    assert registration.affine is None
    assert registration.without_affine(flow) is flow
