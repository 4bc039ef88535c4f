"""Grids of every orientation, and voxels that are told apart by their numbers."""

import numpy as np

SHAPE = (5, 7, 4)


def oblique(spacing=(0.8, 1.2, 3.0), origin=(12.0, -30.0, 7.5)):
    a, b = np.deg2rad([17, -31])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * np.array(spacing)
    affine[:3, 3] = origin
    return affine


GRIDS = {
    "oblique": oblique(),
    "las": np.diag([-1.0, 2, 3, 1]),
    "lps": np.diag([-2.0, -1, 3, 1]),
    "permuted": np.eye(4)[[2, 0, 1, 3]],
}


def numbered(kind=np.float32):
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(kind)
