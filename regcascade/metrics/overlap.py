"""Dice overlap of labels."""

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

    >>> moved, fixed = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])
    >>> dice_per_label(moved.view(1, 1, 4, 1, 1), fixed.view(1, 1, 4, 1, 1), [1, 2, 3])
    tensor([[0.6667, 0.6667,    nan]])
    """
    check_labels(labels)
    wanted = torch.as_tensor(list(labels), dtype=torch.long, device=fixed_labels.device)
    rows = []
    for moved, fixed in zip(moved_labels, fixed_labels, strict=True):
        shared = _voxels(fixed.where(moved == fixed, 0), wanted)
        rows.append(2 * shared / (_voxels(moved, wanted) + _voxels(fixed, wanted)))
    return torch.stack(rows)


def mean_dice(moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int]) -> Scalars:
    """Mean of `dice_per_label` over the labels that are in either scan; NaN if none is. `(B,)`."""
    return dice_per_label(moved_labels, fixed_labels, labels).nanmean(1)


def check_labels(labels: Sequence[int]) -> None:
    """Raise ValueError unless all labels are positive."""
    if any(label <= 0 for label in labels):
        raise ValueError(f"labels: {list(labels)} are not all positive; 0 is background and has no measure.")


def _voxels(volume: Tensor, labels: Tensor) -> Tensor:
    """How many voxels have each label."""
    top = int(labels.max()) if len(labels) else 0
    known = volume.where((volume > 0) & (volume <= top), 0)
    return torch.bincount(known.flatten(), minlength=top + 1)[labels]
