"""Distances between landmarks, in voxels and in mm."""

from regcascade.geometry.warp import warp_points
from regcascade.types import Flow, Points, Scalars, Vector


def landmark_distance_voxels(fixed_points: Points, moving_points: Points, flow: Flow) -> Scalars:
    """Average `|p_fixed + flow(p_fixed) - p_moving|` over the landmarks of both scans, `(B,)`; NaN if there are none.

    Args:
        fixed_points: `(B, K, 3)` in voxels of the fixed grid, NaN where missing.
        moving_points: the same landmarks in voxels of the moving grid.
        flow: `(B, 3, X, Y, Z)`.

    >>> import torch
    >>> points = torch.tensor([[[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]])
    >>> landmark_distance_voxels(points, points + torch.tensor([3.0, 4.0, 0.0]), torch.zeros(1, 3, 5, 5, 5))
    tensor([5.])
    """
    return (warp_points(fixed_points, flow) - moving_points).norm(dim=-1).nanmean(1)


def landmark_distance_mm(fixed_points: Points, moving_points: Points, flow: Flow, moving_spacing: Vector) -> Scalars:
    """Do as `landmark_distance_voxels`, in mm; both ends of a distance lie in the moving grid.

    Args:
        fixed_points: `(B, K, 3)` in voxels of the fixed grid, NaN where missing.
        moving_points: the same landmarks in voxels of the moving grid.
        flow: `(B, 3, X, Y, Z)`.
        moving_spacing: `(B, 3)`, mm per voxel of the moving grid.
    """
    difference = warp_points(fixed_points, flow) - moving_points
    return (difference * moving_spacing.to(difference)[:, None]).norm(dim=-1).nanmean(1)
