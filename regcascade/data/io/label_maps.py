"""Label maps and masks on the grid of their image: one rule for every command and data set.

A file that lies on the image's grid, to a tenth of a voxel, is taken as it is. One that lies on the same grid turned
(axes permuted or flipped) is turned onto the image's. Where the label map or the image does not say where it lies (no
qform and sform, or an affine that is the identity) and the shapes agree, voxel is taken for voxel, with a warning.
Anything else is refused.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Shaped
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import aff2axcodes

from regcascade.data.io.images import LPS_TO_RAS, read_header, read_volume
from regcascade.data.io.itk_images import read_scan
from regcascade.geometry.grid import Geometry, voxels_of

TOLERANCE = 0.1  # of a voxel, by which the corners of grids that are the same may differ


class Turn(NamedTuple):
    """How array axes are permuted, and then flipped, to run as those of another grid.

    >>> Turn((1, 0, 2), (0,))(np.arange(6).reshape(2, 3, 1))[..., 0].tolist()
    [[2, 5], [1, 4], [0, 3]]
    """

    axes: tuple[int, ...] = (0, 1, 2)
    flips: tuple[int, ...] = ()

    def __call__(self, voxels: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "_ _ _"]:
        """The same voxels along the other grid's axes; a view."""
        return np.flip(voxels.transpose(self.axes), self.flips)


def read_labels(path: Path, image: Path, grid: Geometry) -> MetaTensor:
    """A label map or mask on the grid of its image, `(1, X, Y, Z)` float32 whole numbers.

    Args:
        path: the file.
        image: the file of its image, for messages.
        grid: where that image lies.

    Raises:
        ValueError: naming both files, if it lies on another grid; or the file, if it is damaged or no label map.
    """
    turn = turn_onto(read_header(path), grid, path, image)
    voxels = turn(read_volume(path)[0].numpy())
    _check_whole(voxels, path)
    affine = torch.from_numpy(grid.affine.copy())
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(voxels))[None], affine=affine)


def scan_labels(path: Path, image: Path, grid: Geometry) -> sitk.Image:
    """`read_labels` as an ITK image, in the pixel type of its file."""
    labels = read_scan(path)
    own = Geometry.of_image(labels)
    turn = turn_onto(own, grid, path, image)
    _check_whole(sitk.GetArrayViewFromImage(labels), path)
    return labels if own.same_as(grid) else grid.as_itk(turn(voxels_of(labels)))


def turn_onto(own: Geometry, grid: Geometry, path: Path, image: Path) -> Turn:
    """How the voxels of a label map are turned onto the grid of its image.

    Raises:
        ValueError: naming both files and what differs, if the two are not one grid turned.
    """
    turn, distance = _nearest_turn(own, grid)
    if turn == Turn() and distance <= TOLERANCE:
        return turn
    unplaced = next((file for file, where in ((path, own), (image, grid)) if not _says_where(file, where)), None)
    if unplaced is not None and own.shape == grid.shape:
        warnings.warn(
            f"Scans of {unplaced.parent} do not say where they lie (no qform and sform, or an affine that is the "
            f"identity): images and label maps are laid on each other voxel by voxel.",
            stacklevel=2,
        )
        return Turn()
    if turn is not None and distance <= TOLERANCE:
        return turn
    if own.shape != grid.shape:
        raise ValueError(f"{path} has the shape {own.shape}, but its image {image} has {grid.shape}.")
    raise ValueError(
        f"{path} does not lie where its image {image} does: {_difference(own, grid)}. Write it on the grid of the "
        "image, or mend the header that is wrong."
    )


def _nearest_turn(own: Geometry, grid: Geometry) -> tuple[Turn | None, float]:
    """The turn that brings one grid nearest to another, and by how many voxels corners differ then."""
    matrix = np.linalg.inv(grid.affine) @ own.affine
    axes = np.abs(matrix[:3, :3]).argmax(axis=1)
    if sorted(axes) != [0, 1, 2] or tuple(own.shape[axis] for axis in axes) != tuple(grid.shape):
        return None, np.inf
    flips = tuple(k for k, axis in enumerate(axes) if matrix[k, axis] < 0)
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in own.shape])).reshape(3, 8)
    there = matrix[:3, :3] @ corners + matrix[:3, 3:]
    turned = corners[axes]
    for k in flips:
        turned[k] = grid.shape[k] - 1 - turned[k]
    return Turn(tuple(int(axis) for axis in axes), flips), float(np.abs(there - turned).max())


def _says_where(path: Path, grid: Geometry) -> bool:
    """Whether the header of a file places it in the world at all."""
    if any(np.allclose(grid.affine, default, atol=1e-6) for default in (np.eye(4), LPS_TO_RAS)):
        return False
    header = None if path.is_dir() or not path.name.endswith((".nii", ".nii.gz")) else nibabel.load(path).header
    return not isinstance(header, nibabel.Nifti1Header) or bool(header["qform_code"] or header["sform_code"])


def _difference(own: Geometry, grid: Geometry) -> str:
    """What differs between two grids of one shape, in words."""
    if not np.allclose(own.spacing, grid.spacing, rtol=1e-3):
        return f"its voxels measure {_listed(own.spacing)} mm, and those of the image {_listed(grid.spacing)}"
    ours, theirs = ("".join(aff2axcodes(where.affine)) for where in (own, grid))
    if ours != theirs:
        return f"its axes lead to {ours} and those of the image to {theirs}, and the fields of view differ"
    shift = own.affine[:3, 3] - grid.affine[:3, 3]
    return f"its first voxel lies {np.linalg.norm(shift):.3g} mm from that of the image, or its axes are tilted"


def _listed(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _check_whole(values: np.ndarray, path: Path) -> None:
    if not np.isfinite(values).all() or (values != np.round(values)).any() or values.min() < 0:
        raise ValueError(f"{path}: labels must be whole numbers from 0 up; is this an image?")
