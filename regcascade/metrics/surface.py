"""Distances between the surfaces of labels, in mm, by MONAI."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.metrics.overlap import check_labels
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
    """HD95 and average surface distance of each label, from one computation of the distances.

    The surface of a label is its voxels with a face neighbour outside; the border of the volume counts as outside.
    Distances are between centres of voxels. The results are those of MONAI's `compute_hausdorff_distance` and
    `compute_average_surface_distance(symmetric=True)`.

    Args:
        moved_labels: the moving scan's labels, warped, `(B, 1, X, Y, Z)`.
        fixed_labels: `(B, 1, X, Y, Z)`.
        labels: the labels to measure, positive.
        spacing: `(B, 3)`, mm per voxel along each axis of the fixed grid, where both label maps live.

    >>> fixed = torch.zeros(1, 1, 9, 9, 9, dtype=torch.long)
    >>> fixed[..., 2:5] = 1
    >>> surface_measures(fixed.roll(2, -1), fixed, [1], torch.tensor([[1.0, 1.0, 2.5]])).hd95
    tensor([[5.]])
    """
    from monai.metrics.utils import get_edge_surface_distance  # a second to import

    check_labels(labels)
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
