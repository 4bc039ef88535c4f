"""Penalty on folding."""

from torch import Tensor

from regcascade.geometry.warp import jacobian_det
from regcascade.types import Flow
from regcascade.utils.precision import full_precision


def folding_loss(flow: Flow) -> Tensor:
    """Average `max(0, -det)` of the Jacobian determinant over voxels and the batch.

    It is 0 where nothing folds, however large the deformation. Smoothness, which penalises every deformation, need not
    be raised to keep a few voxels from folding.

    Args:
        flow: `(B, 3, X, Y, Z)` in voxels; the determinant is that of `geometry.jacobian_det`.
    """
    with full_precision(flow) as (flow,):
        return (-jacobian_det(flow)).clamp(min=0).mean()
