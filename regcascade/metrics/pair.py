"""All measures of one registered pair, with their units in their names.

An undefined measure (a missing structure, no landmarks, no spacing) is NaN, never 0 or 1. Means leave it out.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from regcascade.geometry.warp import warp_labels
from regcascade.metrics.correlation import correlation_coefficient
from regcascade.metrics.jacobian import jacobian_measures
from regcascade.metrics.landmarks import landmark_distance_mm, landmark_distance_voxels
from regcascade.metrics.overlap import dice_per_label
from regcascade.metrics.surface import surface_measures
from regcascade.types import Batch, Flow, Image, Labels


def pair_measures(
    pair: Batch,
    moved: Image,
    flow: Flow,
    label_names: Mapping[int, str] | None = None,
    moved_labels: Labels | None = None,
) -> dict[str, float]:
    """Measure one pair; all measures are NaN if the flow is not finite.

    The measures before registration are `pair_measures(pair, pair["moving"], zero_flow, label_names)`.

    Args:
        pair: a batch of one pair. Labels, points and spacings may be missing.
        moved: the warped moving image, `(1, 1, X, Y, Z)`.
        flow: `(1, 3, X, Y, Z)`.
        label_names: the labels to measure and their names; by default the numbers in either scan.
        moved_labels: the warped moving labels; by default by `warp_labels`.

    Returns:
        A row with always these keys, in this order: `dice_<label>` for each label, `dice_mean`, `jaccard_<label>`,
        `jaccard_mean`, `cc`, `landmark_distance_voxels`, `landmark_distance_mm`, `hd95_mm` (mean over labels),
        `asd_mm_<label>`, `asd_mm`, `folding_percent`, `sdlogj`, `jacobian_std`, and of the flow's length
        `displacement_mean_voxels`, `displacement_max_voxels`, `displacement_mean_mm`, `displacement_max_mm`.

    Raises:
        ValueError: if the batch holds more than one pair.
    """
    if len(flow) != 1:
        raise ValueError(f"pair_measures takes one pair at a time, not a batch of {len(flow)}.")
    if not flow.isfinite().all():
        return dict.fromkeys(pair_measures(pair, moved, torch.zeros_like(flow), label_names), math.nan)
    overlaps, surfaces = _label_measures(pair, flow, label_names, moved_labels)
    return {
        **overlaps,
        "cc": correlation_coefficient(moved, pair["fixed"]).item(),
        **_landmark_measures(pair, flow),
        **surfaces,
        **{name: values.item() for name, values in jacobian_measures(flow).items()},
        **_displacement_measures(pair, flow),
    }


def label_keys(label_names: Mapping[int, str]) -> dict[int, str]:
    """Turn label names into parts of column names: lower case, only letters, digits and underscores.

    An empty or shared name, or `mean`, gets the label's number.

    >>> label_keys({1: "Left kidney", 2: "mean"})
    {1: 'left_kidney', 2: 'mean_2'}
    """
    slugs = {label: re.sub(r"[\W_]+", "_", name.lower()).strip("_") for label, name in label_names.items()}
    taken = [*slugs.values(), "mean"]
    return {
        label: slug if slug and taken.count(slug) == 1 else f"{slug}_{label}".strip("_")
        for label, slug in slugs.items()
    }


def _label_measures(
    pair: Batch, flow: Tensor, label_names: Mapping[int, str] | None, moved_labels: Tensor | None
) -> tuple[dict[str, float], dict[str, float]]:
    """The columns of overlaps, and those of surface distances; NaN for all that are not known."""
    fixed_labels, moving_labels = pair.get("fixed_labels"), pair.get("moving_labels")
    if moved_labels is None and moving_labels is not None:
        moved_labels = warp_labels(moving_labels, flow)
    dice = hd95 = asd = torch.full((1, len(label_names or {})), math.nan)
    if fixed_labels is not None and moved_labels is not None:
        if not label_names:
            present = torch.cat([fixed_labels.unique(), moved_labels.unique()]).unique().tolist()
            label_names = {label: str(label) for label in present if label > 0}
        dice = dice_per_label(moved_labels, fixed_labels, list(label_names))
        hd95 = asd = torch.full_like(dice, math.nan)
        if (spacing := pair.get("fixed_spacing")) is not None:
            hd95, asd = surface_measures(moved_labels, fixed_labels, list(label_names), spacing)
    keys = label_keys(label_names or {}).values()
    overlaps: dict[str, float] = {}
    for name, values in {"dice": dice, "jaccard": dice / (2 - dice)}.items():
        overlaps |= dict(zip((f"{name}_{key}" for key in keys), values[0].tolist(), strict=True))
        overlaps[f"{name}_mean"] = values.nanmean().item()
    by_label = dict(zip((f"asd_mm_{key}" for key in keys), asd[0].tolist(), strict=True))
    return overlaps, {"hd95_mm": hd95.nanmean().item(), **by_label, "asd_mm": asd.nanmean().item()}


def _landmark_measures(pair: Batch, flow: Tensor) -> dict[str, float]:
    fixed, moving, spacing = pair.get("fixed_points"), pair.get("moving_points"), pair.get("moving_spacing")
    measures = {"landmark_distance_voxels": math.nan, "landmark_distance_mm": math.nan}
    if fixed is not None and moving is not None:
        measures["landmark_distance_voxels"] = landmark_distance_voxels(fixed, moving, flow).item()
        if spacing is not None:
            measures["landmark_distance_mm"] = landmark_distance_mm(fixed, moving, flow, spacing).item()
    return measures


def _displacement_measures(pair: Batch, flow: Tensor) -> dict[str, float]:
    """Mean and maximum length of the flow, in voxels, and in mm by the moving grid's spacing."""
    spacing, measures = pair.get("moving_spacing"), {}
    scales = {"voxels": torch.ones(1, 3), "mm": torch.full((1, 3), math.nan) if spacing is None else spacing}
    for unit, scale in scales.items():
        length = (flow * scale.to(flow)[:, :, None, None, None]).norm(dim=1)
        measures[f"displacement_mean_{unit}"] = length.mean().item()
        measures[f"displacement_max_{unit}"] = length.max().item()
    return measures
