"""What a flow pays for not being smooth, each a module `flow -> scalar`. Flows are in voxels."""

from typing import Any

import torch
from monai.losses import BendingEnergyLoss
from torch import Tensor, nn

from regcascade.types import Flow, size_of
from regcascade.utils.precision import full_precision
from regcascade.utils.registry import Registry, Spec

REGULARIZERS: Registry[nn.Module] = Registry("regularizer")


def build_regularizer(spec: Spec) -> nn.Module:
    """A regularizer from its name, or from a mapping with `name` and options.

    Raises:
        ValueError: for an unknown name or option, naming the valid ones.
    """
    name, options = REGULARIZERS.options(spec)
    return REGULARIZERS.get(name)(**options)


def smoothness(flow: Flow) -> Tensor:
    """Squared forward differences of a flow (Eq. 10 of DR-Net), averaged over the batch.

    The sum over voxels, axes and components is divided by `3 |Omega|`, `|Omega| = X Y Z` counting every
    voxel, although the last plane of an axis has no forward difference. RCN's program computes
    half of it.

    Args:
        flow: `(B, 3, X, Y, Z)`, in voxels.
    """
    with full_precision(flow) as (flow,):
        x, y, z = size_of(flow)
        total: Tensor = _SquaredDifferences.apply(flow)
        return total / (3 * x * y * z * flow.shape[0])


class _SquaredDifferences(torch.autograd.Function):
    """The sum of the squared forward differences D f along every axis, and its gradient 2 D'D f.

    Autograd by itself would keep D f of each axis, thrice the flow of every stage, until the gradient is computed.
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


def bending_energy(flow: Flow) -> Tensor:
    """MONAI's bending energy: squared second derivatives, so that an affine map costs nothing.

    The mean over batch, components and inner voxels of the squared second derivatives along each axis and
    twice the squared mixed ones, in voxels. Every side needs 5 voxels or more.

    Args:
        flow: `(B, 3, X, Y, Z)`, in voxels.
    """
    with full_precision(flow) as (flow,):
        return BendingEnergyLoss(normalize=False)(flow)


@REGULARIZERS.register("gradient")
class GradientPenalty(nn.Module):
    """`smoothness`: squared first differences, the regularizer of both papers."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, flow: Flow) -> Tensor:
        """Eq. 10 of DR-Net."""
        return smoothness(flow)


@REGULARIZERS.register("bending")
class BendingPenalty(nn.Module):
    """`bending_energy`: squared second derivatives."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, flow: Flow) -> Tensor:
        """MONAI's bending energy."""
        return bending_energy(flow)
