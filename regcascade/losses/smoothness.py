"""Penalties on a flow that is not smooth, the regularizers, or that folds. Flows are `(B, 3, X, Y, Z)` in voxels."""

from typing import Any

import torch
from torch import Tensor, nn

from regcascade.geometry.warp import jacobian_det
from regcascade.types import Flow, size_of
from regcascade.utils.precision import full_precision
from regcascade.utils.registry import Registry

REGULARIZERS: Registry[nn.Module] = Registry("regularizer")


def smoothness(flow: Flow) -> Tensor:
    """Sum the squared forward differences of a flow over `3 |Omega|` (DR-Net, Eq. 10), averaged over the batch.

    `|Omega| = X Y Z`, although the last plane of an axis has no forward difference. RCN's program computes half of it.

    >>> float(smoothness(torch.full((1, 3, 4, 4, 4), 2.5)))  # a translation costs nothing
    0.0
    """
    with full_precision(flow) as (flow,):
        x, y, z = size_of(flow)
        total: Tensor = _SquaredDifferences.apply(flow)
        return total / (3 * x * y * z * flow.shape[0])


class _SquaredDifferences(torch.autograd.Function):
    """Sum the squared forward differences D f along every axis; the gradient is 2 D'D f.

    Autograd by itself would keep D f of each axis, three times the flow of every stage, until the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, flow: Tensor) -> Tensor:
        ctx.save_for_backward(flow)
        return torch.stack([flow.diff(dim=axis).square().sum() for axis in (2, 3, 4)]).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (flow,) = ctx.saved_tensors
        result = torch.zeros_like(flow)
        for axis in (2, 3, 4):
            steps, last = flow.diff(dim=axis), flow.shape[axis] - 1
            result.narrow(axis, 1, last).add_(steps)
            result.narrow(axis, 0, last).sub_(steps)
        return result.mul_(2 * gradient)


@REGULARIZERS.register("gradient")
class GradientPenalty(nn.Module):
    """`smoothness`: squared first differences, the regularizer of RCN and DR-Net."""

    def forward(self, flow: Flow) -> Tensor:
        """Compute the penalty."""
        return smoothness(flow)


@REGULARIZERS.register("bending")
class BendingPenalty(nn.Module):
    """MONAI's bending energy: squared second derivatives, so that an affine map costs nothing.

    It averages the squared second derivatives along each axis, and twice the squared mixed ones, over batch, components
    and inner voxels. Every side needs 5 voxels or more.
    """

    def forward(self, flow: Flow) -> Tensor:
        """Compute the penalty."""
        from monai.losses import BendingEnergyLoss  # here, since MONAI takes seconds to import

        with full_precision(flow) as (flow,):
            return BendingEnergyLoss(normalize=False)(flow)


def folding_loss(flow: Flow) -> Tensor:
    """Average `max(0, -det)` of `geometry.jacobian_det` over voxels and the batch: 0 where nothing folds."""
    with full_precision(flow) as (flow,):
        return (-jacobian_det(flow)).clamp(min=0).mean()
