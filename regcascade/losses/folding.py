"""What a deformation pays for folding."""

from torch import Tensor

from regcascade.geometry.warp import jacobian_det
from regcascade.types import Flow
from regcascade.utils.precision import full_precision


def folding_loss(flow: Flow) -> Tensor:
    """How far the Jacobian determinant lies below 0, `max(0, -det)`, averaged over voxels and the batch.

    It is 0 where nothing folds, however large the deformation, and above 0 where any voxel's determinant is negative;
    the smoothness, which prices every deformation, need not be raised to keep the few that fold.

    Args:
        flow: `(B, 3, X, Y, Z)`, in voxels; the determinant is that of `geometry.warp.jacobian_det`.
    """
    with full_precision(flow) as (flow,):
        return (-jacobian_det(flow)).clamp(min=0).mean()
