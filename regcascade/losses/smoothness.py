"""What a flow pays for not being smooth, each a module `flow -> scalar`. Flows are in voxels."""

from monai.losses import BendingEnergyLoss
from torch import Tensor, nn

from regcascade.losses.precision import full_precision
from regcascade.registry import Registry, Spec
from regcascade.types import Flow, size_of

REGULARIZERS: Registry[nn.Module] = Registry("regularizer")


def build_regularizer(spec: Spec) -> nn.Module:
    """A regularizer from its name, or from a mapping with `name` and options.

    Raises:
        ValueError: for an unknown name or option, naming the valid ones.
    """
    name, options = REGULARIZERS.options(spec)
    return REGULARIZERS.get(name)(**options)


def smoothness(flow: Flow) -> Tensor:
    """Squared forward differences of a flow (Eq. 10 of the second paper), averaged over the batch.

    The sum over voxels, axes and components is divided by `3 |Omega|`, `|Omega| = X Y Z` counting every
    voxel, although the last plane of an axis has no forward difference. The first paper's program computes
    half of it.

    Args:
        flow: `(B, 3, X, Y, Z)`, in voxels.
    """
    with full_precision(flow) as (flow,):
        x, y, z = size_of(flow)
        total = sum(flow.diff(dim=axis).square().sum() for axis in (2, 3, 4))
        return total / (3 * x * y * z * flow.shape[0])


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
        """Eq. 10 of the second paper."""
        return smoothness(flow)


@REGULARIZERS.register("bending")
class BendingPenalty(nn.Module):
    """`bending_energy`: squared second derivatives."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, flow: Flow) -> Tensor:
        """MONAI's bending energy."""
        return bending_energy(flow)
