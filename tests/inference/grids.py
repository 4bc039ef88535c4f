"""Grids of every orientation, and scans on them."""

from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import map_coordinates

SIZE = (20, 18, 16)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def axes(degrees: float) -> np.ndarray:
    """Turned about the third axis."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


def oblique(shape: tuple[int, ...], spacing: tuple[float, ...], degrees: float = 14.0) -> np.ndarray:
    """The affine of a turned grid about the middle of the world, RAS."""
    affine = np.eye(4)
    affine[:3, :3] = axes(degrees) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def write_scan(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def resampled(voxels: np.ndarray, affine: np.ndarray, onto: np.ndarray, shape: tuple[int, ...], order: int = 1):
    """A volume on another grid of the same world, by SciPy."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ onto[:3, :3].T + onto[:3, 3]
    inverse = np.linalg.inv(affine)
    there = np.moveaxis(places @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    return map_coordinates(voxels, there, order=order, mode="nearest")
