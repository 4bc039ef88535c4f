"""Distances between the surfaces of labels, in mm, by MONAI."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

from regcascade.metrics.overlap import _check_labels
from regcascade.types import Labels, Vector

PERCENTILE = 0.95


class SurfaceMeasures(NamedTuple):
    """Measures of each label, `(B, L)`, in mm; NaN where a label is missing in either scan.

    Attributes:
        hd95: the larger of the two directed 95th percentiles of the distances.
        asd: the average symmetric surface distance, the mean over the voxels of both surfaces.
    """

    hd95: Float[Tensor, "batch labels"]
    asd: Float[Tensor, "batch labels"]


def surface_measures(
    moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int], spacing: Vector
) -> SurfaceMeasures:
    """Both measures from the same distances, which take nearly all of the time.

    The surface of a label is its voxels with a face neighbour outside; the border of the volume counts as outside. The
    distance is between centres of voxels. The results are those of MONAI's `compute_hausdorff_distance` and
    `compute_average_surface_distance(symmetric=True)`.

    Args:
        moved_labels: the moving scan's labels, warped, `(B, 1, X, Y, Z)`.
        fixed_labels: `(B, 1, X, Y, Z)`.
        labels: the labels to measure, positive.
        spacing: `(B, 3)`, mm per voxel along each axis of the fixed grid, where both label maps live.
    """
    missing = torch.full((len(fixed_labels), len(labels)), math.nan, device=fixed_labels.device)
    measures = SurfaceMeasures(missing, missing.clone())
    for item, millimetres in enumerate(spacing.tolist()):
        for column, label in enumerate(labels):
            moved, fixed = moved_labels[item, 0] == label, fixed_labels[item, 0] == label
            if moved.any() and fixed.any():
                _, distances, _ = get_edge_surface_distance(moved, fixed, spacing=millimetres, symmetric=True)
                percentiles = [torch.quantile(directed, PERCENTILE) for directed in distances]
                measures.hd95[item, column] = torch.stack(percentiles).max()
                measures.asd[item, column] = torch.cat(list(distances)).mean()
    return measures


def hd95_mm(
    moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int], spacing: Vector
) -> Float[Tensor, "batch labels"]:
    """95th percentile of the distances between the surfaces of each label, in mm, see `surface_measures`.

    Args:
        moved_labels: the moving scan's labels, warped, `(B, 1, X, Y, Z)`.
        fixed_labels: `(B, 1, X, Y, Z)`.
        labels: the labels to measure, positive.
        spacing: `(B, 3)`, mm per voxel along each axis of the fixed grid, where both label maps live.

    Returns:
        `(B, L)` in the order of `labels`: NaN where a label is missing in either scan.
    """
    _check_labels(labels)
    return surface_measures(moved_labels, fixed_labels, labels, spacing).hd95


def asd_mm(
    moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int], spacing: Vector
) -> Float[Tensor, "batch labels"]:
    """Average symmetric surface distance of each label in mm, for the arguments of `hd95_mm`. `(B, L)`."""
    _check_labels(labels)
    return surface_measures(moved_labels, fixed_labels, labels, spacing).asd
