"""Dice overlap of labels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.types import Labels, Scalars


def dice_per_label(moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int]) -> Float[Tensor, "batch labels"]:
    """Compute the Dice overlap of each label, `2 |A and B| / (|A| + |B|)`.

    Args:
        moved_labels: `(B, 1, X, Y, Z)`.
        fixed_labels: the same.
        labels: the labels to measure, positive.

    Returns:
        `(B, L)`: NaN for a label in neither scan, 0 for one in a single scan.

    >>> moved, fixed = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])
    >>> dice_per_label(moved.view(1, 1, 4, 1, 1), fixed.view(1, 1, 4, 1, 1), [1, 2, 3])
    tensor([[0.6667, 0.6667,    nan]])
    """
    check_labels(labels)
    wanted = torch.as_tensor(list(labels), dtype=torch.long, device=fixed_labels.device)
    top = max(labels, default=0)

    def voxels(volume: Tensor) -> Tensor:
        known = volume.where((volume > 0) & (volume <= top), 0)
        return torch.bincount(known.flatten(), minlength=top + 1)[wanted]

    pairs = zip(moved_labels, fixed_labels, strict=True)
    return torch.stack([2 * voxels(b.where(a == b, 0)) / (voxels(a) + voxels(b)) for a, b in pairs])


def mean_dice(moved_labels: Labels, fixed_labels: Labels, labels: Sequence[int]) -> Scalars:
    """Average `dice_per_label` over the labels that are in either scan, `(B,)`; NaN if none is."""
    return dice_per_label(moved_labels, fixed_labels, labels).nanmean(1)


def check_labels(labels: Sequence[int]) -> None:
    """Raise ValueError unless all labels are positive."""
    if any(label <= 0 for label in labels):
        raise ValueError(f"labels: {list(labels)} are not all positive; 0 is background and has no measure.")
