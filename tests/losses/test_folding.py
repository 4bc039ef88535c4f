"""The penalty on folds, against loops over voxels in NumPy."""

import numpy as np
import pytest
import torch

from regcascade.losses import folding_loss
from regcascade.metrics.jacobian import folding_percent

SIZE = (9, 11, 7)


def by_loops(flow):
    """Forward differences, one voxel at a time."""
    values = []
    for u in flow.double().numpy():
        for p in np.ndindex(*(side - 1 for side in u.shape[1:])):
            step = [tuple(np.add(p, np.eye(3, dtype=int)[a])) for a in range(3)]
            jacobian = np.stack([u[(slice(None), *s)] - u[(slice(None), *p)] for s in step], axis=1) + np.eye(3)
            values.append(max(0.0, -np.linalg.det(jacobian)))
    return np.mean(values)


def test_it_is_the_mean_depth_below_zero(smooth_flow):
    flow = smooth_flow(SIZE, amplitude=6.0)
    assert by_loops(flow) > 1e-3
    assert folding_loss(flow).item() == pytest.approx(by_loops(flow), rel=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_it_is_above_zero_just_where_a_fold_is(axis):
    index = torch.arange(SIZE[axis], dtype=torch.float64)
    shape = [1, 1, 1]
    shape[axis] = -1
    for slope, folds in [(3.0, False), (-0.99, False), (-1.01, True), (-2.0, True)]:
        flow = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
        flow[:, axis] = (slope * index).view(shape)
        loss = folding_loss(flow).item()
        assert loss == pytest.approx(max(0.0, -(1 + slope)))
        assert (loss > 0) == folds == (folding_percent(flow).item() > 0)


def test_one_folded_voxel_is_found():
    flow = torch.zeros(1, 3, *SIZE)
    flow[0, 1, 4, 5, 3] = 1.5  # lands beyond its neighbour
    assert folding_loss(flow).item() == pytest.approx(0.5 / np.prod(np.subtract(SIZE, 1)), rel=1e-5)


def test_its_gradient_is_right_and_unfolds():
    generator = torch.Generator().manual_seed(0)
    flow = (2 * torch.randn(1, 3, 4, 5, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(folding_loss, flow)
    before = folding_loss(flow)
    (slope,) = torch.autograd.grad(before, flow)
    with torch.no_grad():
        assert folding_loss(flow - 0.01 * slope / slope.norm()) < before


def test_half_precision_is_computed_in_float32(smooth_flow):
    flow = smooth_flow(SIZE, amplitude=6.0).to(torch.bfloat16)
    assert folding_loss(flow).dtype == torch.float32
