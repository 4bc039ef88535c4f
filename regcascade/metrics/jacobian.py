"""Measures of a flow's Jacobian determinant."""

import math

from torch import Tensor

from regcascade.geometry.warp import jacobian_det
from regcascade.types import Flow, Scalars
from regcascade.utils.precision import at_least_float32

SMALLEST_DETERMINANT = 1e-9  # smaller ones are clamped to it before the logarithm


def folding_percent(flow: Flow) -> Scalars:
    """Percent of voxels where the Jacobian determinant is 0 or less, `(B,)`; NaN if one is not finite.

    >>> import torch
    >>> folding_percent(torch.zeros(1, 3, 4, 4, 4))
    tensor([0.])
    """
    return _folding_percent(jacobian_det(at_least_float32(flow)).flatten(1))


def jacobian_measures(flow: Flow) -> dict[str, Scalars]:
    """Compute all measures of the Jacobian determinant.

    Returns:
        `(B,)` each: `folding_percent`; `sdlogj`, the standard deviation of the determinant's logarithm, clamped to
        `SMALLEST_DETERMINANT`; `jacobian_std`, that of the determinant (RCN). Both are population deviations.
    """
    determinant = jacobian_det(at_least_float32(flow)).flatten(1)
    return {
        "folding_percent": _folding_percent(determinant),
        "sdlogj": determinant.clamp(min=SMALLEST_DETERMINANT).log().std(1, correction=0),
        "jacobian_std": determinant.std(1, correction=0),
    }


def _folding_percent(determinant: Tensor) -> Tensor:
    percent = 100 * (determinant <= 0).float().mean(1)
    return percent.where(determinant.isfinite().all(1), math.nan)  # NaN is not above 0, nor is it a fold
