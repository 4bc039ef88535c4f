"""Inverse-consistency error of a pair that is registered in both directions."""

import math

import torch

from regcascade.geometry.warp import compose, stays_inside
from regcascade.types import Flow, Vector
from regcascade.utils.precision import at_least_float32


def inverse_consistency_measures(flow: Flow, back: Flow, fixed_spacing: Vector | None) -> dict[str, float]:
    """Average `|flow(p) + back(p + flow(p))|` over the fixed voxels that `flow` keeps inside the moving scan.

    Args:
        flow: `(1, 3, X, Y, Z)` in voxels, registers moving to fixed.
        back: the same shape, registers fixed to moving.
        fixed_spacing: `(1, 3)`, mm per voxel of the fixed scan.

    Returns:
        `inverse_consistency_voxels` and `inverse_consistency_mm`; NaN for a flow that is not finite, without voxels
        inside, and in mm without a spacing.
    """
    unknown = {"inverse_consistency_voxels": math.nan, "inverse_consistency_mm": math.nan}
    if not (flow.isfinite().all() and back.isfinite().all()):
        return unknown
    flow, back = at_least_float32(flow), at_least_float32(back)
    left = compose(back, flow).movedim(1, -1)[stays_inside(flow)]  # (voxels, 3)
    if not len(left):
        return unknown
    scales = {"voxels": torch.ones_like(left[:1])} | ({} if fixed_spacing is None else {"mm": fixed_spacing.to(left)})
    found = {f"inverse_consistency_{unit}": (left * scale).norm(dim=1).mean().item() for unit, scale in scales.items()}
    return unknown | found
