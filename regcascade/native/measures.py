"""What a registration in native space did, in mm and on the fixed scan's own grid."""

from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from regcascade.metrics import dice_per_label
from regcascade.native.initial import itk_affine
from regcascade.native.scans import Scan
from regcascade.transform import Inverse, Transform


def measure(
    fixed: Scan,
    moving: Scan,
    initial: np.ndarray,
    transform: Transform,
    inverse: Inverse,
    moved: sitk.Image,
    moved_labels: sitk.Image | None,
) -> dict[str, Any]:
    """Every measure that the files allow, None where one is not defined.

    Args:
        fixed, moving: the scans.
        initial: the map that came before the networks, from mm to mm, RAS.
        transform: the whole one.
        inverse: of it.
        moved: the moving scan on the fixed one's grid.
        moved_labels: the same of its labels.

    Returns:
        Correlation coefficients over the fixed grid with the scans where their headers put them (`cc_headers`), after
        the initial map and after all; the displacement in mm; folding and the determinant; the residual of the inverse
        and which part has none; Dice and landmark distances where both scans have labels, or landmarks.
    """
    determinant = transform.jacobian_det()
    length = np.linalg.norm(transform.total(), axis=-1)
    reached = inverse.reached
    found: dict[str, Any] = {
        "cc_headers": _cc(fixed.image, _laid(moving.image, fixed.image, np.eye(4))),
        "cc_initial": _cc(fixed.image, _laid(moving.image, fixed.image, initial)),
        "cc_after": _cc(fixed.image, moved),
        "displacement_mm": {"mean": float(length.mean()), "max": float(length.max())},
        "folding_percent": 100 * float((determinant <= 0).mean()),
        "jacobian": {"min": float(determinant.min()), "max": float(determinant.max())},
        "inverse": {
            "residual_mm_mean": float(inverse.residual_mm[reached].mean()) if reached.any() else None,
            "residual_mm_max": float(inverse.residual_mm[reached].max()) if reached.any() else None,
            "without_percent": 100 * float((~reached).mean()),
        },
    }
    if fixed.labels is not None and moving.labels is not None and moved_labels is not None:
        before = _laid(moving.labels, fixed.labels, initial, sitk.sitkNearestNeighbor)
        found["dice_initial"], found["dice_after"] = (_dice(fixed.labels, each) for each in (before, moved_labels))
    if fixed.points_mm is not None and moving.points_mm is not None:
        found["landmark_distance_mm"] = _distances(fixed.points_mm, moving.points_mm, initial, transform)
    return found


def _laid(image: sitk.Image, onto: sitk.Image, affine: np.ndarray, how: int = sitk.sitkLinear) -> sitk.Image:
    """An image on the grid of another, by a map from mm of that to mm of its own."""
    fill = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(image, onto, itk_affine(affine), how, fill)


def _cc(a: sitk.Image, b: sitk.Image) -> float | None:
    x, y = (sitk.GetArrayViewFromImage(image).ravel().astype(np.float64) for image in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else None


def _dice(fixed: sitk.Image, moved: sitk.Image) -> dict[str, float | None]:
    """Of each label that either has, and their mean."""
    a, b = (torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.int64))[None, None] for image in (fixed, moved))
    labels = sorted(set(a.unique().tolist()) | set(b.unique().tolist()) - {0})
    labels = [label for label in labels if label]
    if not labels:
        return {"mean": None}
    values = dice_per_label(b, a, labels)[0].tolist()
    return {"mean": float(np.mean(values)), **{str(label): value for label, value in zip(labels, values, strict=True)}}


def _distances(
    fixed: np.ndarray, moving: np.ndarray, initial: np.ndarray, transform: Transform
) -> dict[str, float | None]:
    """Between the moving landmarks and where the fixed ones are taken, in mm, averaged over those that both have."""
    if len(fixed) != len(moving):
        raise ValueError(
            f"The fixed scan has {len(fixed)} landmarks and the moving one {len(moving)}: give the same ones, in the "
            "same order."
        )
    laid = fixed @ initial[:3, :3].T + initial[:3, 3]
    found = {}
    for when, places in (("initial", laid), ("after", transform.points_to_moving(fixed))):
        distance = np.linalg.norm(places - moving, axis=1)
        found[when] = float(np.nanmean(distance)) if np.isfinite(distance).any() else None
    return found
