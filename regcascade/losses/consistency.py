"""What two deformations pay for not being each other's inverse."""

import torch
from torch import Tensor

from regcascade.geometry.warp import compose, stays_inside
from regcascade.types import Flow
from regcascade.utils.precision import full_precision


def inverse_consistency_loss(flow: Flow, back: Flow) -> Tensor:
    """Squared gradient of what is left after going back and forth (GradICON, Tian et al., CVPR 2023).

    With c the flow of the two maps in turn, `id + c = (id + flow) o (id + back)`, it is the squared Frobenius norm of
    the Jacobian of that map less the identity, which is that of c: the sum over components and axes of the squared
    forward differences, averaged over voxels and the batch. 0 for maps that are each other's inverse, and for ones that
    miss that by a translation.

    A voxel that `back` takes out of the volume, or whose neighbour it takes out, cannot be met there and does not
    count; a pair of which nothing stays inside has the loss 0.

    Args:
        flow: `(B, 3, X, Y, Z)` in voxels, of one scan as the moving one.
        back: of the same shape, of the other one as the moving one.
    """
    with full_precision(flow, back) as (flow, back):
        left = compose(flow, back)
        inside = stays_inside(back)
        core, met = left[:, :, :-1, :-1, :-1], inside[:, :-1, :-1, :-1]
        squares = torch.zeros_like(core[:, 0])
        for axis in range(3):
            ends = [slice(1, None) if k == axis else slice(None, -1) for k in range(3)]
            squares = squares + (left[:, :, *ends] - core).square().sum(1)
            met = met & inside[:, *ends]
        voxels = met.flatten(1).sum(1).clamp(min=1)
        return ((squares * met).flatten(1).sum(1) / voxels).mean()
