"""What a registration in native space did, in mm and on the fixed scan's own grid."""

from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from regcascade import resampling
from regcascade.metrics import dice_per_label
from regcascade.native.scans import Scan
from regcascade.native.start import itk_affine
from regcascade.transform import Inverse, Transform

LESS_ALIKE = 0.001  # of the correlation coefficient; resampling alone may cost less


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
        moved: the moving scan on the fixed one's grid, beyond its field at its smallest intensity.
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
        "cc_headers": _cc(fixed.image, resampling.resampled(moving.image, fixed.image, itk_affine(np.eye(4)))),
        "cc_initial": _cc(fixed.image, resampling.resampled(moving.image, fixed.image, itk_affine(initial))),
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
        before = resampling.resampled_labels(moving.labels, fixed.labels, itk_affine(initial))
        found["dice_initial"], found["dice_after"] = (_dice(fixed.labels, each) for each in (before, moved_labels))
    if fixed.points_mm is not None and moving.points_mm is not None:
        found["landmark_distance_mm"] = _distances(fixed.points_mm, moving.points_mm, initial, transform)
    return found


def _cc(a: sitk.Image, b: sitk.Image) -> float | None:
    x, y = (sitk.GetArrayViewFromImage(image).ravel().astype(np.float64) for image in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else None


def _dice(fixed: sitk.Image, moved: sitk.Image) -> dict[str, float | None]:
    """Of each label that either has, and their mean."""
    arrays = [sitk.GetArrayFromImage(image).astype(np.int64) for image in (fixed, moved)]
    # By their ranks, 0 the background's: the values may be of any size, and counting would take as much memory.
    labels = np.unique(np.concatenate([[0], *map(np.unique, arrays)]))
    if len(labels) == 1:
        return {"mean": None}
    a, b = (torch.from_numpy(np.searchsorted(labels, array))[None, None] for array in arrays)
    values = dice_per_label(b, a, range(1, len(labels)))[0].tolist()
    named = {str(label): value for label, value in zip(labels[1:], values, strict=True)}
    return {"mean": float(np.mean(values)), **named}


def afterthoughts(measured: dict[str, Any]) -> list[str]:
    """What the measures give reason to say."""
    found = []
    if measured["folding_percent"] > 0:
        found.append(
            f"{measured['folding_percent']:.3g} % of the fixed scan's voxels fold (Jacobian determinant 0 or below): "
            "see jacobian.nii.gz."
        )
    if (measured["cc_after"] or 0) < (measured["cc_initial"] or 0) - LESS_ALIKE:
        found.append("The scans are less alike after registration than before: look at the picture before use.")
    return found


def check_landmarks(fixed: Scan, moving: Scan) -> None:
    """Raise ValueError if both scans have landmarks, and one more of them than the other."""
    if fixed.points is not None and moving.points is not None and len(fixed.points) != len(moving.points):
        raise ValueError(
            f"{fixed.name} has {len(fixed.points)} landmarks and {moving.name} {len(moving.points)}: give the same "
            "ones, in the same order."
        )


def _distances(
    fixed: np.ndarray, moving: np.ndarray, initial: np.ndarray, transform: Transform
) -> dict[str, float | None]:
    """Between the moving landmarks and where the fixed ones are taken, in mm, averaged over those that both have."""
    laid = fixed @ initial[:3, :3].T + initial[:3, 3]
    found = {}
    for when, places in (("initial", laid), ("after", transform.points_to_moving(fixed))):
        distance = np.linalg.norm(places - moving, axis=1)
        found[when] = float(np.nanmean(distance)) if np.isfinite(distance).any() else None
    return found
