"""Distances between the surfaces of labels, in mm, by MONAI."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.metrics.overlap import check_labels
from regcascade.types import Labels, Vector

PERCENTILE = 0.95


PerLabel = Float[Tensor, "batch labels"]


def surface_measures(
    moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int], spacing: Vector
) -> tuple[PerLabel, PerLabel]:
    """Compute the HD95 and the average surface distance of each label, in mm; NaN if a scan lacks the label.

    The HD95 is the larger of the two directed 95th percentiles. The average is over the voxels of both surfaces.

    The surface of a label is its voxels with a face neighbour outside the label or the volume. Distances are between
    centres of voxels. Results equal MONAI's `compute_hausdorff_distance` and `compute_average_surface_distance`.

    Args:
        moved_labels: `(B, 1, X, Y, Z)`.
        fixed_labels: the same.
        labels: the labels to measure, positive.
        spacing: `(B, 3)`, mm per voxel of the fixed grid.

    >>> fixed = torch.zeros(1, 1, 9, 9, 9, dtype=torch.long)
    >>> fixed[..., 2:5] = 1
    >>> hd95, asd = surface_measures(fixed.roll(2, -1), fixed, [1], torch.tensor([[1.0, 1.0, 2.5]]))
    >>> hd95
    tensor([[5.]])
    """
    from monai.metrics.utils import get_edge_surface_distance  # a second to import

    check_labels(labels)
    hd95, asd = torch.full((2, len(fixed_labels), len(labels)), math.nan, device=fixed_labels.device)
    for item, millimetres in enumerate(spacing.tolist()):
        for column, label in enumerate(labels):
            moved, fixed = moved_labels[item, 0] == label, fixed_labels[item, 0] == label
            if moved.any() and fixed.any():
                _, distances, _ = get_edge_surface_distance(moved, fixed, spacing=millimetres, symmetric=True)
                percentiles = [torch.quantile(directed, PERCENTILE) for directed in distances]
                hd95[item, column] = torch.stack(percentiles).max()
                asd[item, column] = torch.cat(list(distances)).mean()
    return hd95, asd
