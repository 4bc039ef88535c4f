"""Folding and spread of a flow, from the determinant of its Jacobian."""

import math

from torch import Tensor

from regcascade.geometry.warp import jacobian_det
from regcascade.types import Flow, Scalars
from regcascade.utils.precision import at_least_float32

SMALLEST_DETERMINANT = 1e-9  # below it, the logarithm is of this


def folding_percent(flow: Flow) -> Scalars:
    """Percent of voxels where the map folds: where its Jacobian determinant is 0 or less. `(B,)`.

    NaN where a determinant is not finite.

    >>> import torch
    >>> folding_percent(torch.zeros(1, 3, 4, 4, 4))
    tensor([0.])
    """
    return _folding_percent(_determinant(flow))


def jacobian_measures(flow: Flow) -> dict[str, Scalars]:
    """All measures of the Jacobian determinant, from one computation of it.

    Returns:
        `(B,)` each: `folding_percent`; `sdlogj`, the standard deviation of the determinant's logarithm, determinants
        below `SMALLEST_DETERMINANT` counting as that; `jacobian_std`, the standard deviation of the determinant, as in
        RCN. Both are population standard deviations over voxels.
    """
    determinant = _determinant(flow)
    return {
        "folding_percent": _folding_percent(determinant),
        "sdlogj": determinant.clamp(min=SMALLEST_DETERMINANT).log().std(1, correction=0),
        "jacobian_std": determinant.std(1, correction=0),
    }


def _determinant(flow: Tensor) -> Tensor:
    """The Jacobian determinants of each item, `(B, N)`."""
    return jacobian_det(at_least_float32(flow)).flatten(1)


def _folding_percent(determinant: Tensor) -> Tensor:
    percent = 100 * (determinant <= 0).float().mean(1)
    return percent.where(determinant.isfinite().all(1), math.nan)  # NaN is not above 0, nor is it a fold
