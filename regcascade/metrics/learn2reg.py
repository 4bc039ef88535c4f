"""The measures of Learn2Reg's evaluator (version 2.0), by its formulas; docs/evaluation.md lists how ours differ."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from regcascade.types import Batch, Flow

ADDED, LOWEST, HIGHEST = 3, 1e-9, 1e9  # added to the determinant, and the range it is clipped to
BORDER = 2  # voxels left out on each side, where central differences meet zeros
PERCENT = 95


def learn2reg_measures(pair: Batch, flow: Flow, labels: Sequence[int]) -> dict[str, float]:
    """Measure one pair as Learn2Reg's evaluator does.

    Args:
        pair: a batch of one pair. Labels and points may be missing.
        flow: `(1, 3, X, Y, Z)`.
        labels: the labels that count, positive.

    Returns:
        `learn2reg_dice` and `learn2reg_hd95_voxels` (means over the labels in both scans), `learn2reg_tre_mm`,
        `learn2reg_sdlogj`; NaN where undefined. The HD95 leaves out labels pushed out of the volume, which the
        evaluator counts as infinite.
    """
    if not flow.isfinite().all():
        return dict.fromkeys(learn2reg_measures(pair, torch.zeros_like(flow), labels), math.nan)
    field = flow[0].double().cpu().numpy()
    dice, hd95 = _of_labels(pair, field, labels)
    return {
        "learn2reg_dice": dice,
        "learn2reg_hd95_voxels": hd95,
        "learn2reg_tre_mm": _landmark_error(pair, field),
        "learn2reg_sdlogj": _sdlogj(field),
    }


def _of_labels(pair: Batch, field: np.ndarray, labels: Sequence[int]) -> tuple[float, float]:
    if "fixed_labels" not in pair or "moving_labels" not in pair:
        return math.nan, math.nan
    fixed, moving = (pair[role][0, 0].cpu().numpy() for role in ("fixed_labels", "moving_labels"))
    moved = ndimage.map_coordinates(moving, np.indices(fixed.shape) + field, order=0)
    dice, hd95 = [], []
    for label in labels:
        if (fixed == label).any() and (moving == label).any():
            a, b = fixed == label, moved == label
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
            if b.any():
                hd95.append(_robust_hausdorff(a, b))
    return _mean(dice), _mean(hd95)


def _robust_hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    """The larger of both directed percentiles of surface distances, weighed by area, in voxels."""
    from monai.metrics.utils import get_edge_surface_distance

    # MONAI has the surface elements and areas of the package `surface-distance`, which the evaluator uses.
    edges, distances, areas = get_edge_surface_distance(
        torch.from_numpy(b), torch.from_numpy(a), spacing=(1, 1, 1), use_subvoxels=True, symmetric=True
    )
    percentiles = []
    for edge, distance, area in zip(edges, distances, areas, strict=True):
        lengths, sizes = distance.double().numpy(), area[edge].double().numpy()
        order = np.lexsort((sizes, lengths))
        reached = np.cumsum(sizes[order]) / sizes.sum()
        index = int(np.searchsorted(reached, PERCENT / 100))
        percentiles.append(lengths[order][min(index, len(order) - 1)])
    return float(max(percentiles))


def _landmark_error(pair: Batch, field: np.ndarray) -> float:
    """Mean distance in mm of the landmarks in both scans, the field interpolated by cubic splines."""
    if "fixed_points" not in pair or "moving_points" not in pair:
        return math.nan
    fixed, moving = (pair[role][0].double().cpu().numpy() for role in ("fixed_points", "moving_points"))
    known = ~(np.isnan(fixed) | np.isnan(moving)).any(axis=1)
    fixed, moving = fixed[known], moving[known]
    reached = fixed + np.stack([ndimage.map_coordinates(part, fixed.T) for part in field], axis=1)
    spacing = pair["moving_spacing"][0].double().cpu().numpy()
    return _mean(np.linalg.norm((reached - moving) * spacing, axis=1))


def _sdlogj(field: np.ndarray) -> float:
    """Deviation of the determinant's logarithm, by central differences, without the border."""
    inner = slice(BORDER, -BORDER)
    jacobian = np.stack([np.stack(np.gradient(part)) for part in field])[..., inner, inner, inner]
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)) + np.eye(3))
    return float(np.log((determinant + ADDED).clip(LOWEST, HIGHEST)).std())


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan
