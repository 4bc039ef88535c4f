"""Small scans as NIfTI files, anisotropic and with a turned affine."""

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (13, 18, 11)
SPACING = (0.5, 1.25, 3.0)


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    """Write an array with a rotated, flipped and anisotropic affine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing)
    affine[:3, 3] = [10, -20, 30]
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def scan_arrays(index: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Random intensities of a scale of their own, and a box of each of two labels."""
    image = np.random.default_rng(index).gamma(2, 10 * 4.0**index, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[3 + index % 2 : 9, 4:12, 2:6] = 1
    labels[3:9, 4:12, 6:9] = 2
    return image, labels
