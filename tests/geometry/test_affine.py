"""Affine maps and stationary velocities: scaling and squaring, and what undoes a stage and a registration."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import compose, integrate, warp
from regcascade.metrics.jacobian import folding_percent
from regcascade.registration import Registration, Stage

SIZE = (17, 22, 19)
# Turns and contracts, so that no path leaves the volume.
LINEAR = np.array([[-0.2, 0.3, 0.05], [-0.3, -0.1, 0.1], [0.0, -0.1, -0.15]])


def linear(matrix, size=SIZE):
    """The field `matrix (p - c)` about the middle of the volume."""
    centred = np.indices(size).transpose(1, 2, 3, 0) - (np.array(size) - 1) / 2
    return torch.from_numpy((centred @ matrix.T).transpose(3, 0, 1, 2))[None]


def inner(flow, margin=5):  # where no path meets the border
    return flow[:, :, margin:-margin, margin:-margin, margin:-margin]


@pytest.mark.parametrize("squarings", [0, 1, 4, 7])
def test_a_constant_velocity_integrates_to_itself(squarings):
    velocity = torch.tensor([1.5, -0.75, 3.0], dtype=torch.float64)[None, :, None, None, None].expand(2, 3, *SIZE)
    torch.testing.assert_close(integrate(velocity, squarings), velocity, rtol=0, atol=1e-12)


def test_no_squaring_is_the_velocity_itself(smooth_flow):
    velocity = smooth_flow(SIZE)
    assert torch.equal(integrate(velocity, 0), velocity)


@pytest.mark.parametrize("squarings", [1, 3, 7])
def test_a_linear_velocity_is_a_matrix_power(squarings):
    steps = np.linalg.matrix_power(np.eye(3) + LINEAR / 2**squarings, 2**squarings)
    flow = integrate(linear(LINEAR), squarings)
    torch.testing.assert_close(inner(flow), inner(linear(steps - np.eye(3))), rtol=0, atol=1e-10)


def test_a_linear_velocity_converges_to_the_matrix_exponential():
    expected = linear(expm(LINEAR) - np.eye(3))
    errors = [inner(integrate(linear(LINEAR), k) - expected).abs().max().item() for k in (4, 5, 6, 7, 12)]
    for coarse, fine in pairwise(errors[:4]):
        assert fine == pytest.approx(coarse / 2, rel=0.05)  # first order
    assert errors[-1] < 1e-3


def test_opposite_velocities_undo_each_other_the_better_the_more_squarings(smooth_flow):
    velocity = smooth_flow(SIZE, amplitude=2.0)
    left = []
    for k in (1, 3, 5, 7):
        there, back = integrate(velocity, k), integrate(-velocity, k)
        left.append(inner(compose(there, back)).abs().mean().item())
    assert left[0] > left[1] > left[2] > left[3]
    assert left[3] < 0.02 < 0.2 < velocity.abs().mean()
    folded = folding_percent(3 * velocity)
    assert (folded > 1).all() and (folding_percent(integrate(3 * velocity, 7)) < folded / 10).all()


def test_gradients_of_an_integrated_velocity():
    generator = torch.Generator().manual_seed(0)
    velocity = (torch.rand(1, 3, 4, 5, 3, generator=generator, dtype=torch.float64) - 0.45).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: integrate(v, 3), velocity)


def test_integration_stays_float32_under_autocast(smooth_flow):
    velocity = smooth_flow(SIZE).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        flow = integrate(velocity, 5)
    assert flow.dtype == torch.float32
    torch.testing.assert_close(flow, integrate(velocity, 5))


def affine_map():
    matrix = torch.from_numpy(np.eye(3) + 0.5 * LINEAR)[None]
    return Affine(matrix, torch.tensor([[0.5, -1.0, 0.25]], dtype=torch.float64), SIZE)


def test_an_affine_map_and_its_inverse_are_the_identity():
    affine = affine_map()
    there, back = affine.displacement(), affine.inverse().displacement()
    torch.testing.assert_close(inner(compose(back, there)), torch.zeros_like(inner(there)), rtol=0, atol=1e-10)
    torch.testing.assert_close(affine.inverse().inverse().displacement(), there)


@pytest.fixture
def registration(smooth, smooth_flow):
    """An affine stage and two integrated ones."""
    moving, affine = smooth(SIZE, batch=1), affine_map()
    totals = {0: affine.displacement()}
    stages = [Stage(totals[0], totals, warp(moving, totals[0]), affine)]
    for seed in (1, 2):
        velocity = smooth_flow(SIZE, 1.5, batch=1, seed=seed)
        flow = integrate(velocity, 7)
        total = stages[-1].followed_by(flow)
        stages.append(Stage(flow, {0: total}, warp(moving, total), velocity=velocity, squarings=7))
    return Registration(moving, tuple(stages), (stages[-1],))


def test_a_registration_is_undone_by_its_stages_in_reverse(registration):
    for stage in registration.stages:
        assert inner(compose(stage.flow, stage.inverse_flow)).abs().mean() < 0.02
    back = registration.inverse_flow
    for left in (compose(registration.flow, back), compose(back, registration.flow)):
        assert inner(left, 6).abs().mean() < 0.03 < 0.5 < registration.flow.abs().mean()
    last, *others = [stage.inverse_flow for stage in registration.stages][::-1]
    wrong = compose(compose(others[1], others[0]), last)
    assert inner(compose(registration.flow, wrong), 6).abs().mean() > 0.1  # the order matters


def test_a_stage_without_a_velocity_has_no_inverse(registration):
    plain = Stage(registration.flow, {0: registration.flow}, registration.moved)
    assert plain.inverse_flow is None
    assert Registration(registration.moving, (*registration.stages, plain), (plain,)).inverse_flow is None
