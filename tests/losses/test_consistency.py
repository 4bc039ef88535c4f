"""Inverse consistency: 0 for inverse pairs, and an independent reference in NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from regcascade.geometry.affine import Affine
from regcascade.losses import inverse_consistency_loss

SIZE = (12, 15, 11)


def reference(flow, back):
    """Back, then forth, its gradient by forward differences, over the voxels that `back` keeps inside."""
    means = []
    for u, w in zip(flow.double().numpy(), back.double().numpy(), strict=True):
        grid = np.indices(u.shape[1:])
        at = grid + w
        met = np.stack([map_coordinates(u[a], at, order=1, mode="nearest") for a in range(3)])
        left = at + met - grid
        high = np.reshape(u.shape[1:], (3, 1, 1, 1)) - 1
        inside = ((at >= 0) & (at <= high)).all(axis=0)
        values = []
        for p in np.ndindex(*(side - 1 for side in u.shape[1:])):
            steps = [tuple(np.add(p, np.eye(3, dtype=int)[a])) for a in range(3)]
            if all(inside[q] for q in (p, *steps)):
                values.append(sum(((left[(slice(None), *q)] - left[(slice(None), *p)]) ** 2).sum() for q in steps))
        means.append(np.mean(values) if values else 0.0)
    return np.mean(means)


def test_it_is_the_squared_gradient_of_what_is_left(smooth_flow):
    flow, back = smooth_flow(SIZE, 1.5, seed=1), smooth_flow(SIZE, 2.5, seed=2)
    assert inverse_consistency_loss(flow, back).item() == pytest.approx(reference(flow, back), rel=1e-9)
    assert reference(flow, back) != pytest.approx(reference(back, flow), rel=1e-2)


def test_translations_cost_nothing():
    flow = torch.tensor([[2.0, -1.5, 0.25]])[:, :, None, None, None].expand(1, 3, *SIZE)
    assert inverse_consistency_loss(flow, -flow).item() == pytest.approx(0, abs=1e-12)
    # A translation is all that is left.
    assert inverse_consistency_loss(flow, torch.zeros_like(flow)).item() == pytest.approx(0, abs=1e-12)


def test_an_affine_map_and_its_inverse_cost_nothing():
    matrix = torch.eye(3, dtype=torch.float64)[None] + torch.tensor(
        [[0.2, -0.1, 0.05], [0.1, -0.15, 0.1], [0, 0.1, 0.1]], dtype=torch.float64
    )
    affine = Affine(matrix, torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), SIZE)
    flow, back = affine.displacement(), affine.inverse().displacement()
    assert inverse_consistency_loss(flow, back).item() == pytest.approx(0, abs=1e-20)
    assert inverse_consistency_loss(back, flow).item() == pytest.approx(0, abs=1e-20)
    alone = inverse_consistency_loss(torch.zeros_like(flow), flow).item()
    assert alone == pytest.approx((matrix - torch.eye(3)).square().sum().item())


def test_where_nothing_stays_inside_there_is_nothing_to_pay():
    away = torch.full((1, 3, *SIZE), 100.0)
    assert inverse_consistency_loss(torch.rand(1, 3, *SIZE), away).item() == 0


def test_its_gradient_reaches_both_maps():
    generator = torch.Generator().manual_seed(0)

    def field(scale: float) -> Tensor:
        return (scale * torch.rand(1, 3, 5, 4, 6, generator=generator, dtype=torch.float64)).requires_grad_()

    assert torch.autograd.gradcheck(inverse_consistency_loss, (field(0.4), field(0.3)))


def test_a_batch_is_the_mean_of_its_pairs(smooth_flow):
    flow, back = smooth_flow(SIZE, 1.0, seed=1), smooth_flow(SIZE, 2.0, seed=2)
    each = [inverse_consistency_loss(flow[k : k + 1], back[k : k + 1]).item() for k in range(2)]
    assert inverse_consistency_loss(flow, back).item() == pytest.approx(math.fsum(each) / 2)
