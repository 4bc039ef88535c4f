"""Measures of a flow by its Jacobian determinant: folding and spread."""

import math

from torch import Tensor

from regcascade.geometry.warp import jacobian_det
from regcascade.types import Flow, Scalars
from regcascade.utils.precision import at_least_float32

# `sdlogj` takes the logarithm of determinants that are not below this.
SMALLEST_DETERMINANT = 1e-9


def folding_percent(flow: Flow) -> Scalars:
    """Percent of voxels where the map folds: the Jacobian determinant is 0 or less; NaN if one is not finite. `(B,)`"""
    return _folding_percent(_determinant(flow))


def jacobian_std(flow: Flow) -> Scalars:
    """Population standard deviation over voxels of the Jacobian determinant, the first paper's. `(B,)`."""
    return _population_std(_determinant(flow))


def sdlogj(flow: Flow) -> Scalars:
    """Population standard deviation over voxels of the logarithm of the Jacobian determinant. `(B,)`.

    Determinants below `SMALLEST_DETERMINANT` (1e-9, folded voxels among them) count as that.
    """
    return _sdlogj(_determinant(flow))


def _determinant(flow: Tensor) -> Tensor:
    """The Jacobian determinants of each item, `(B, N)`."""
    return jacobian_det(at_least_float32(flow)).flatten(1)


def _folding_percent(determinant: Tensor) -> Tensor:
    percent = 100 * (determinant <= 0).float().mean(1)
    return percent.where(determinant.isfinite().all(1), math.nan)  # NaN is not above 0, nor is it a fold


def _sdlogj(determinant: Tensor) -> Tensor:
    return _population_std(determinant.clamp(min=SMALLEST_DETERMINANT).log())


def _population_std(values: Tensor) -> Tensor:
    return values.std(1, correction=0)
