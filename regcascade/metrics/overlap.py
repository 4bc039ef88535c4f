"""Overlap of labels: Dice and Jaccard."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.types import Labels, Scalars


def dice_per_label(moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int]) -> Float[Tensor, "batch labels"]:
    """Dice overlap of each label, `2 |A and B| / (|A| + |B|)`.

    Args:
        moved_labels: the moving scan's labels, warped, `(B, 1, X, Y, Z)`.
        fixed_labels: `(B, 1, X, Y, Z)`.
        labels: the labels to measure, positive; background does not count.

    Returns:
        `(B, L)` in the order of `labels`: NaN where a label is in neither scan, 0 where it is in one only.
    """
    _check_labels(labels)
    wanted = torch.as_tensor(list(labels), dtype=torch.long, device=fixed_labels.device)
    rows = []
    for moved, fixed in zip(moved_labels, fixed_labels, strict=True):
        shared = _voxels(fixed.where(moved == fixed, 0), wanted)
        rows.append(2 * shared / (_voxels(moved, wanted) + _voxels(fixed, wanted)))
    return torch.stack(rows)


def mean_dice(moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int]) -> Scalars:
    """Mean over the labels that are in either scan of `dice_per_label`; NaN if none is. `(B,)`."""
    return dice_per_label(moved_labels, fixed_labels, labels).nanmean(1)


def jaccard_per_label(
    moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int]
) -> Float[Tensor, "batch labels"]:
    """Jaccard overlap of each label, `|A and B| / |A or B|`, for the arguments of `dice_per_label`. `(B, L)`."""
    return _jaccard(dice_per_label(moved_labels, fixed_labels, labels))


def _check_labels(labels: Sequence[int]) -> None:
    if any(label <= 0 for label in labels):
        raise ValueError(f"labels: {list(labels)} are not all positive; 0 is background and has no measure.")


def _voxels(volume: Tensor, labels: Tensor) -> Tensor:
    """How many voxels have each label."""
    top = int(labels.max()) if len(labels) else 0
    known = volume.where((volume > 0) & (volume <= top), 0)
    return torch.bincount(known.flatten(), minlength=top + 1)[labels]


def _jaccard(dice: Tensor) -> Tensor:
    return dice / (2 - dice)
