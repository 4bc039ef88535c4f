"""Label maps and masks on the grid of their image: one rule for every command and data set.

A file on the image's grid, to a tenth of a voxel, is taken as it is. One on the same grid turned (axes permuted or
flipped) is turned onto the image's. Where the label map or the image does not say where it lies (no qform and sform, or
an identity affine) and the shapes agree, voxel is taken for voxel, with a warning. Anything else is refused.
"""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import apply_affine
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation

from regcascade.data.io.errors import PlaceWarning
from regcascade.data.io.images import read_stored
from regcascade.geometry.grid import LPS_TO_RAS, Geometry

TOLERANCE = 0.1  # of a voxel, by which the corners of grids that are the same may differ
UNTURNED = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])

Turn = Float[np.ndarray, "3 2"]  # nibabel's orientation array: the axis that each axis becomes, and -1 where flipped


def read_labels(path: Path, image: Path, grid: Geometry) -> MetaTensor:
    """Read a label map or mask on the grid of its image, `(1, X, Y, Z)` float32 whole numbers.

    Args:
        path: the file.
        image: the file of its image, for messages.
        grid: where that image lies.

    Raises:
        ValueError: naming both files, if it lies on another grid; or the file, if it is damaged or no label map.
    """
    voxels = torch.from_numpy(_on_grid(path, image, grid).astype(np.float32))
    return MetaTensor(voxels[None], affine=torch.from_numpy(grid.affine.copy()))


def scan_labels(path: Path, image: Path, grid: Geometry) -> sitk.Image:
    """Do as `read_labels`, but give an ITK image in the pixel type of the file."""
    return grid.as_itk(_on_grid(path, image, grid))


def _on_grid(path: Path, image: Path, grid: Geometry) -> np.ndarray:
    own, voxels = read_stored(path)
    turn = turn_onto(own, grid, path, image)
    if not np.isfinite(voxels).all() or (voxels != np.round(voxels)).any() or voxels.min() < 0:
        raise ValueError(f"{path}: labels must be whole numbers from 0 up; is this an image?")
    return np.ascontiguousarray(apply_orientation(voxels, turn))


def turn_onto(own: Geometry, grid: Geometry, path: Path, image: Path) -> Turn:
    """Find how the voxels of a label map are turned onto the grid of its image.

    Raises:
        ValueError: naming both files and what differs, if the two are not one grid turned.
    """
    onto = np.linalg.inv(grid.affine) @ own.affine
    turn = io_orientation(onto)
    same = tuple(own.shape[axis] for axis in np.argsort(turn[:, 0])) == grid.shape
    if same:
        corners = np.array(np.meshgrid(*[(0, side - 1) for side in grid.shape])).reshape(3, 8).T
        there = apply_affine(onto @ inv_ornt_aff(turn, own.shape), corners)
        same = bool(np.abs(there - corners).max() <= TOLERANCE)
    if same and np.array_equal(turn, UNTURNED):
        return turn
    unplaced = next((file for file, where in ((path, own), (image, grid)) if not _says_where(file, where)), None)
    if unplaced is not None and own.shape == grid.shape:
        warnings.warn(
            f"Scans of {unplaced.parent} do not say where they lie (no qform and sform, or an affine that is the "
            f"identity): images and label maps are laid on each other voxel by voxel.",
            PlaceWarning,
            stacklevel=2,
        )
        return UNTURNED
    if same:
        return turn
    if own.shape != grid.shape:
        raise ValueError(f"{path} has the shape {own.shape}, but its image {image} has {grid.shape}.")
    raise ValueError(
        f"{path} does not lie where its image {image} does: {_difference(own, grid)}. Write it on the grid of the "
        "image, or mend the header that is wrong."
    )


def _says_where(path: Path, grid: Geometry) -> bool:
    """Whether the header of a file says where it lies."""
    if any(np.allclose(grid.affine, default, atol=1e-6) for default in (np.eye(4), LPS_TO_RAS)):
        return False
    header = None if path.is_dir() or not path.name.endswith((".nii", ".nii.gz")) else nibabel.load(path).header
    return not isinstance(header, nibabel.Nifti1Header) or bool(header["qform_code"] or header["sform_code"])


def _difference(own: Geometry, grid: Geometry) -> str:
    """Say what differs between two grids of one shape."""
    if not np.allclose(own.spacing, grid.spacing, rtol=1e-3):
        ours, theirs = (" x ".join(f"{step:.4g}" for step in where.spacing) for where in (own, grid))
        return f"its voxels measure {ours} mm, and those of the image {theirs}"
    ours, theirs = ("".join(aff2axcodes(where.affine)) for where in (own, grid))
    if ours != theirs:
        return f"its axes lead to {ours} and those of the image to {theirs}, and the fields of view differ"
    shift = own.affine[:3, 3] - grid.affine[:3, 3]
    return f"its first voxel lies {np.linalg.norm(shift):.3g} mm from that of the image, or its axes are tilted"
