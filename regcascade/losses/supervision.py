"""Weak supervision of the total flow by overlap of labels and distance of landmarks.

Convention: `moved(p) = moving(p + flow(p))`, so the fixed landmark p belongs at `p + flow(p)` of the moving scan.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from regcascade.geometry.warp import warp, warp_points
from regcascade.types import Flow, Labels, Points
from regcascade.utils.precision import full_precision

# Masks, moved masks and their gradients take 16 bytes a voxel and label: 8 labels take 270 MB at 128^3.
LABELS_AT_ONCE = 8


def soft_dice_loss(moving_labels: Labels, fixed_labels: Labels, flow: Flow) -> Tensor:
    """Compute 1 minus the soft Dice of the warped moving labels and the fixed ones, averaged over the pairs.

    Each moving label is warped linearly as a mask m of 0 and 1 and compared with the fixed mask f by
    `2 sum(m f) / (sum m + sum f)`. A pair's Dice is the mean over its labels: one in neither scan does not count, one
    in only one scan counts as 0, the background never counts. A pair without labels is left out; a batch without any
    has the loss 0.

    `LABELS_AT_ONCE` masks are made at a time; where that takes several rounds, the backward pass makes them again.

    Args:
        moving_labels: `(B, 1, X, Y, Z)` integers.
        fixed_labels: the same.
        flow: `(B, 3, X, Y, Z)` in voxels.
    """
    present = torch.cat([moving_labels.unique(), fixed_labels.unique()]).unique()
    values = present[present != 0]
    with full_precision(flow) as (flow,):
        if len(values) == 0:
            return flow.new_zeros(())
        groups = values.split(LABELS_AT_ONCE)
        # Nothing in it is random, so there is no random state to keep.
        again = partial(checkpoint, _dice, use_reentrant=False, preserve_rng_state=False)
        dice_of = _dice if len(groups) == 1 else again
        rounds = [dice_of(moving_labels, fixed_labels, flow, group) for group in groups]
        dice, counts = (torch.cat(parts, dim=1) for parts in zip(*rounds, strict=True))
        return _mean_of_pairs(1 - dice, counts)


def landmark_loss(fixed_points: Points, moving_points: Points, flow: Flow) -> Tensor:
    """Average `|p_fixed + flow(p_fixed) - p_moving|` over landmarks, in voxels, then over the pairs of the batch.

    A landmark that is NaN in either scan does not count. A pair without any is left out; a batch without any has the
    loss 0. The gradient is always finite.

    Args:
        fixed_points: `(B, K, 3)` in voxels of the fixed grid, NaN where missing.
        moving_points: the same landmarks in voxels of the moving grid.
        flow: `(B, 3, X, Y, Z)` in voxels.
    """
    with full_precision(flow, fixed_points, moving_points) as (flow, fixed_points, moving_points):
        known = ~(fixed_points + moving_points).isnan().any(-1)
        difference = warp_points(fixed_points, flow) - moving_points
        # Before the norm: the gradient of a NaN that is left out afterwards would be NaN too.
        distance = difference.masked_fill(~known[..., None], 0.0).norm(dim=-1)
        return _mean_of_pairs(distance, known)


def _dice(
    moving: Labels, fixed: Labels, flow: Flow, values: Tensor
) -> tuple[Float[Tensor, "batch labels"], Bool[Tensor, "batch labels"]]:
    """Compute the soft Dice of each value in each pair, and whether it is in either scan."""
    values = values.view(1, -1, 1, 1, 1)
    moving_masks, fixed_masks = moving == values, fixed == values
    target = fixed_masks.to(flow.dtype)
    moved = warp(moving_masks.to(flow.dtype), flow)
    shared, total = (moved * target).sum((2, 3, 4)), (moved + target).sum((2, 3, 4))
    # Below one voxel the fixed scan does not have the label, and the Dice is 0 whatever it is divided by.
    return 2 * shared / total.clamp(min=1), (moving_masks | fixed_masks).flatten(2).any(2)


def _mean_of_pairs(values: Float[Tensor, "batch n"], counts: Bool[Tensor, "batch n"]) -> Tensor:
    """Average what counts over each pair, then over the pairs in which anything does; 0 if none."""
    number = counts.sum(1)
    means = values.masked_fill(~counts, 0.0).sum(1) / number.clamp(min=1)
    return means.sum() / (number > 0).sum().clamp(min=1)
