"""What two registrations of one pair, one in each direction, miss being each other's inverse by."""

import math

import torch

from regcascade.geometry.warp import compose, stays_inside
from regcascade.types import Flow, Vector
from regcascade.utils.precision import at_least_float32


def inverse_consistency_measures(flow: Flow, back: Flow, fixed_spacing: Vector | None) -> dict[str, float]:
    """How far a voxel of the fixed scan ends from where it began, there and back: `|flow(p) + back(p + flow(p))|`.

    Both are means over the voxels that `flow` does not take out of the moving scan, where nothing could bring them
    back; NaN where there are none, or where a flow is not finite.

    Args:
        flow: `(1, 3, X, Y, Z)` in voxels, the moving scan's registration to the fixed one.
        back: of the same shape, the fixed scan's to the moving one.
        fixed_spacing: `(1, 3)`, mm per voxel of the fixed scan, in whose grid the way ends.

    Returns:
        `inverse_consistency_voxels`, and `inverse_consistency_mm`, NaN without a spacing.
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
