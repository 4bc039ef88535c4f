"""Penalty on two deformations that are not each other's inverse."""

import torch
from torch import Tensor

from regcascade.geometry.warp import compose, stays_inside
from regcascade.types import Flow
from regcascade.utils.precision import full_precision


def inverse_consistency_loss(flow: Flow, back: Flow) -> Tensor:
    """Penalise the gradient of what remains after going back and forth (GradICON, Tian et al., CVPR 2023).

    Let c be the flow of both maps in turn: `id + c = (id + flow) o (id + back)`. The loss is the squared Frobenius norm
    of the Jacobian of c, by forward differences, averaged over voxels and the batch. It is 0 for maps that are each
    other's inverse up to a translation.

    A voxel counts only if `back` keeps it and its neighbours in the volume. A pair without such voxels has the loss 0.

    `flow` and `back`, `(B, 3, X, Y, Z)` in voxels, register a pair one way and the other.
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
