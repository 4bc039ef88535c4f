"""What a registration in native space did, in mm and on the fixed scan's own grid."""

import math
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from regcascade.geometry import resample as resampling
from regcascade.geometry.displacement import planes
from regcascade.geometry.grid import Geometry
from regcascade.geometry.transform import Inverse, Transform
from regcascade.inference.scans import Scan
from regcascade.inference.start import itk_affine

LESS_ALIKE = 0.001  # of the correlation coefficient; resampling alone may cost less


def measure(
    fixed: Scan,
    moving: Scan,
    initial: np.ndarray,
    transform: Transform,
    determinant: Float[np.ndarray, "x y z"],
    inverse: Inverse,
    moved: sitk.Image,
    moved_labels: sitk.Image | None,
) -> dict[str, Any]:
    """Every measure that the files allow, None where one is not defined.

    Args:
        fixed, moving: the scans.
        initial: the map that came before the networks, from mm to mm, RAS.
        transform: the whole one.
        determinant: of its Jacobian.
        inverse: of it.
        moved: the moving scan on the fixed one's grid, beyond its field at its smallest intensity.
        moved_labels: the same of its labels.

    Returns:
        Correlation coefficients over the fixed grid with the scans where their headers put them (`cc_headers`), after
        the initial map and after all; the displacement in mm; folding and the determinant; the residual of the inverse
        and which part has none; Dice and landmark distances where both scans have labels, or landmarks.
    """
    reached = inverse.reached
    found: dict[str, Any] = {
        "cc_headers": _cc(fixed.image, resampling.resampled(moving.image, fixed.geometry, itk_affine(np.eye(4)))),
        "cc_initial": _cc(fixed.image, resampling.resampled(moving.image, fixed.geometry, itk_affine(initial))),
        "cc_after": _cc(fixed.image, moved),
        "displacement_mm": _lengths(transform),
        "folding_percent": 100 * float((determinant <= 0).mean()),
        "jacobian": {"min": float(determinant.min()), "max": float(determinant.max())},
        "inverse": {
            "residual_mm_mean": float(inverse.residual_mm[reached].mean()) if reached.any() else None,
            "residual_mm_max": float(inverse.residual_mm[reached].max()) if reached.any() else None,
            "without_percent": 100 * float((~reached).mean()),
        },
    }
    if fixed.labels is not None and moving.labels is not None and moved_labels is not None:
        before = resampling.resampled_labels(moving.labels, Geometry.of_image(fixed.labels), itk_affine(initial))
        found["dice_initial"], found["dice_after"] = (_dice(fixed.labels, each) for each in (before, moved_labels))
    if fixed.points_mm is not None and moving.points_mm is not None:
        found["landmark_distance_mm"] = _distances(fixed.points_mm, moving.points_mm, initial, transform)
    return found


def _cc(a: sitk.Image, b: sitk.Image) -> float | None:
    arrays = [sitk.GetArrayViewFromImage(image) for image in (a, b)]
    means = [array.mean(dtype=np.float64) for array in arrays]
    sums = np.zeros(3)
    for rows in planes(arrays[0].shape):
        x, y = (array[rows].ravel() - mean for array, mean in zip(arrays, means, strict=True))
        sums += x @ x, y @ y, x @ y
    scale = float(np.sqrt(sums[0] * sums[1]))
    return float(sums[2]) / scale if scale > 0 else None


def _dice(fixed: sitk.Image, moved: sitk.Image) -> dict[str, float | None]:
    """Of each label that either has, and their mean."""
    a, b = (sitk.GetArrayViewFromImage(image) for image in (fixed, moved))
    found = [np.unique(array[rows]).astype(np.int64) for array in (a, b) for rows in planes(a.shape)]
    # By their ranks, 0 the background's: the values may be of any size, and counting would take as much memory.
    labels = np.unique(np.concatenate([[0], *found]))
    if len(labels) == 1:
        return {"mean": None}
    counts = np.zeros((3, len(labels)), np.int64)  # in the one, in the other, in both
    for rows in planes(a.shape):
        x, y = (np.searchsorted(labels, array[rows].ravel().astype(np.int64)) for array in (a, b))
        for count, ranks in zip(counts, (x, y, x[x == y]), strict=True):
            count += np.bincount(ranks, minlength=len(labels))
    values = (2 * counts[2] / (counts[0] + counts[1]).clip(min=1))[labels != 0].tolist()
    named = {str(label): value for label, value in zip(labels[labels != 0], values, strict=True)}
    return {"mean": float(np.mean(values)), **named}


def _lengths(transform: Transform) -> dict[str, float]:
    """The mean and the largest displacement, in mm."""
    total = largest = 0.0
    for _, part in transform.total_by_planes():
        length = np.linalg.norm(part, axis=-1)
        total, largest = total + float(length.sum(dtype=np.float64)), max(largest, float(length.max()))
    return {"mean": total / math.prod(transform.fixed.shape), "max": largest}


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
