"""Distances between landmarks, in voxels and in mm."""

from regcascade.geometry.warp import warp_points
from regcascade.types import Flow, Points, Scalars, Vector


def landmark_distance_voxels(fixed_points: Points, moving_points: Points, flow: Flow) -> Scalars:
    """Mean over landmarks of `|p_fixed + flow(p_fixed) - p_moving|`, in voxels. `(B,)`.

    Args:
        fixed_points: `(B, K, 3)` in voxels of the fixed grid, NaN where missing.
        moving_points: the same landmarks in voxels of the moving grid.
        flow: `(B, 3, X, Y, Z)`.

    Returns:
        The mean over the landmarks that both scans have, NaN if there are none.
    """
    return (warp_points(fixed_points, flow) - moving_points).norm(dim=-1).nanmean(1)


def landmark_distance_mm(fixed_points: Points, moving_points: Points, flow: Flow, moving_spacing: Vector) -> Scalars:
    """`landmark_distance_voxels` in mm: both ends of each distance lie in the moving grid. `(B,)`.

    Args:
        fixed_points: `(B, K, 3)` in voxels of the fixed grid, NaN where missing.
        moving_points: the same landmarks in voxels of the moving grid.
        flow: `(B, 3, X, Y, Z)`.
        moving_spacing: `(B, 3)`, mm per voxel along each axis of the moving grid.
    """
    difference = warp_points(fixed_points, flow) - moving_points
    return (difference * moving_spacing.to(difference)[:, None]).norm(dim=-1).nanmean(1)
