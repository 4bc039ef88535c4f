"""Measure a registration in native space, in mm and on the fixed scan's own grid."""

import math
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float
from nibabel.affines import apply_affine

from regcascade.geometry.displacement import planes
from regcascade.geometry.grid import Geometry
from regcascade.geometry.itk import affine_transform
from regcascade.geometry.resample import resampled, resampled_labels
from regcascade.geometry.transform import Inverse, Transform
from regcascade.inference.scans import Scan

LESS_ALIKE = 0.001  # how much resampling alone may change the CC


def measure(
    fixed: Scan,
    moving: Scan,
    transform: Transform,
    determinant: Float[np.ndarray, "x y z"],
    inverse: Inverse,
    moved: sitk.Image,
    moved_labels: sitk.Image | None,
) -> dict[str, Any]:
    """Take every measure that the files allow; None where one is undefined.

    Args:
        fixed, moving: the scans.
        transform, determinant, inverse: the whole map, its Jacobian determinant and its inverse.
        moved, moved_labels: the moving scan and its labels on the fixed grid, the smallest intensity beyond its field.

    Returns:
        The CC over the fixed grid by the headers alone (`cc_headers`), after the initial map and after all; the
        displacement in mm; folding and the range of the determinant; the residual of the inverse and the part without
        one; Dice and landmark distances if both scans have labels or landmarks.
    """
    initial, residual = transform.affine, inverse.residual_mm[inverse.reached]
    found: dict[str, Any] = {}
    for name, affine in (("cc_headers", np.eye(4)), ("cc_initial", initial)):
        found[name] = _cc(fixed.image, resampled(moving.image, fixed.geometry, affine_transform(affine)))
    found |= {
        "cc_after": _cc(fixed.image, moved),
        "displacement_mm": _lengths(transform),
        "folding_percent": 100 * float((determinant <= 0).mean()),
        "jacobian": {"min": float(determinant.min()), "max": float(determinant.max())},
        "inverse": {
            "residual_mm_mean": float(residual.mean()) if len(residual) else None,
            "residual_mm_max": float(residual.max()) if len(residual) else None,
            "without_percent": 100 * float((~inverse.reached).mean()),
        },
    }
    if fixed.labels is not None and moving.labels is not None and moved_labels is not None:
        laid = resampled_labels(moving.labels, Geometry.of_image(fixed.labels), affine_transform(initial))
        found["dice_initial"], found["dice_after"] = (_dice(fixed.labels, each) for each in (laid, moved_labels))
    if fixed.points_mm is not None and moving.points_mm is not None:
        found["landmark_distance_mm"] = {}
        places = apply_affine(initial, fixed.points_mm), transform.points_to_moving(fixed.points_mm)
        for when, place in zip(("initial", "after"), places, strict=True):
            distance = np.linalg.norm(place - moving.points_mm, axis=1)
            known = np.isfinite(distance).any()
            found["landmark_distance_mm"][when] = float(np.nanmean(distance)) if known else None
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
    """Dice of each label in either map, and their mean."""
    a, b = (sitk.GetArrayViewFromImage(image) for image in (fixed, moved))
    found = [np.unique(array[rows]).astype(np.int64) for array in (a, b) for rows in planes(a.shape)]
    # Count labels by rank: bincount of large values runs out of memory.
    labels = np.unique(np.concatenate([[0], *found]))
    if len(labels) == 1:
        return {"mean": None}
    counts = np.zeros((3, len(labels)), np.int64)  # in a, in b, in both
    for rows in planes(a.shape):
        x, y = (np.searchsorted(labels, array[rows].ravel().astype(np.int64)) for array in (a, b))
        for count, ranks in zip(counts, (x, y, x[x == y]), strict=True):
            count += np.bincount(ranks, minlength=len(labels))
    values = (2 * counts[2] / (counts[0] + counts[1]).clip(min=1))[labels != 0].tolist()
    named = {str(label): value for label, value in zip(labels[labels != 0], values, strict=True)}
    return {"mean": float(np.mean(values)), **named}


def _lengths(transform: Transform) -> dict[str, float]:
    """Mean and largest displacement, in mm."""
    total = largest = 0.0
    for _, part in transform.total_by_planes():
        length = np.linalg.norm(part, axis=-1)
        total, largest = total + float(length.sum(dtype=np.float64)), max(largest, float(length.max()))
    return {"mean": total / math.prod(transform.fixed.shape), "max": largest}


def doubts(measured: dict[str, Any]) -> list[str]:
    """List the warnings that follow from the measures."""
    found = []
    if (folding := measured["folding_percent"]) > 0:
        found.append(f"{folding:.3g} % of the fixed voxels fold (Jacobian determinant 0 or less): see jacobian.nii.gz.")
    if (measured["cc_after"] or 0) < (measured["cc_initial"] or 0) - LESS_ALIKE:
        found.append("The scans are less alike after registration than before: look at the picture before use.")
    return found


def check_landmarks(fixed: Scan, moving: Scan) -> None:
    """Raise ValueError if both scans have landmarks, but not the same number."""
    if fixed.points is not None and moving.points is not None and len(fixed.points) != len(moving.points):
        raise ValueError(
            f"{fixed.name} has {len(fixed.points)} landmarks and {moving.name} {len(moving.points)}: give the same "
            "landmarks, in the same order."
        )
