"""A displacement field on a scan's grid: its values anywhere, its determinants and its inversion.

Coordinates are voxels of the field's own grid. Beyond the border a field has the value of the nearest border voxel.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.geometry.grid import Places
from regcascade.geometry.warp import jacobian_det, sample_at
from regcascade.types import Size

CHUNK = 2**20  # points worked on at a time
FIXED_POINT, NEWTON = 12, 20  # iterations at most
HALVINGS = 4  # at most, of a Newton step that does not help
ENOUGH, HELPFUL = 0.75, 0.99  # of the error: a step is accepted below the first, a point given up above the second
LONGEST_STEP = 4.0  # voxels, of a Newton step
STEP = 0.05  # voxels, of the finite differences of a Newton step
FLATTEST = 1e-2  # smallest determinant a Newton step divides by; folds have less

Vectors = Float[np.ndarray, "x y z 3"]
Coordinates = Float[Tensor, "k 3"]
Field = Callable[[Coordinates], Coordinates]


def as_volume(vectors: Vectors) -> Float[Tensor, "1 3 x y z"]:
    """View vectors per voxel as the tensor that `warp` samples."""
    return torch.from_numpy(vectors).permute(3, 0, 1, 2)[None]


def values_at(volume: Float[Tensor, "1 3 x y z"], voxels: Places) -> Places:
    """Trilinear values at places in voxels, in the volume's precision; NaN where a place is NaN."""
    return sample_at(volume, torch.from_numpy(voxels).to(volume.dtype)[None])[0].numpy()


def planes(shape: Size, chunk: int | None = None) -> Iterator[slice]:
    """Slices of planes along the first axis, of about `chunk` voxels each (default `CHUNK`)."""
    count = max(1, (chunk or CHUNK) // (shape[1] * shape[2]))
    for start in range(0, shape[0], count):
        yield slice(start, min(start + count, shape[0]))


def slabs(shape: Size) -> Iterator[tuple[slice, Places]]:
    """Slices of planes along the first axis, each with its voxel coordinates."""
    for rows in planes(shape):
        axes = (np.arange(rows.start, rows.stop), np.arange(shape[1]), np.arange(shape[2]))
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        yield rows, grid.reshape(-1, 3).astype(np.float64)


def determinants(vectors: Vectors, to_voxels: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "x y z"]:
    """`geometry.warp.jacobian_det` of `p -> p + to_voxels vectors(p)`; backward differences on an axis' last plane."""
    result = np.empty(vectors.shape[:3], np.float32)
    for rows in planes((len(vectors), *vectors.shape[1:3])):
        block = vectors[max(rows.start - 1, 0) : rows.stop + 1]
        if rows.stop == len(vectors):
            block = _continued(block, 0)
        block = block[rows.start - rows.stop - 1 :] @ to_voxels.T.astype(np.float32)
        result[rows] = jacobian_det(as_volume(_continued(block, 1, 2)))[0].numpy()
    return result


def _continued(vectors: Vectors, *axes: int) -> np.ndarray:
    """One more plane along each axis, which repeats the last difference."""
    return np.pad(vectors, [(0, int(axis in axes)) for axis in range(4)], mode="reflect", reflect_type="odd")


def inverted(
    field: Field, targets: Coordinates, to_mm: Float[Tensor, "3 3"], tolerance: float
) -> tuple[Coordinates, Float[Tensor, " k"]]:
    """Find the places that a field takes to the targets: `p + field(p) = target`.

    Fixed-point iterations `p <- target - field(p)` converge where the field changes by less than one voxel per voxel.
    Damped Newton steps follow for the places that are left.

    Args:
        field: displacements in voxels at places in voxels, as `targets` are.
        to_mm: from voxel steps to mm in the world of the targets.
        tolerance: largest error of a place that counts as found, in mm.

    Returns:
        The places in voxels, and their errors in mm, NaN where the target is.
    """
    places = targets - field(targets)
    misses, errors = _misses(field, places, targets, to_mm)
    left = torch.arange(len(places))
    trial, trial_misses, trial_errors = places.clone(), misses, errors
    for _ in range(FIXED_POINT):
        keep = trial_errors > tolerance
        left, trial, trial_misses = left[keep], trial[keep], trial_misses[keep]
        if not len(left):
            return places, errors
        trial = trial - trial_misses
        trial_misses, trial_errors = _misses(field, trial, targets[left], to_mm)
        better = trial_errors < errors[left]
        places[left[better]], errors[left[better]] = trial[better], trial_errors[better]
    left = left[trial_errors > tolerance]
    for _ in range(NEWTON):
        if not len(left):
            break
        before = errors[left]
        places[left], errors[left] = _newton(field, places[left], targets[left], to_mm)
        left = left[(errors[left] > tolerance) & (errors[left] < HELPFUL * before)]
    return places, errors


def _misses(field: Field, places: Tensor, targets: Tensor, to_mm: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors from the targets to where places are taken, in voxels, and their lengths in mm."""
    misses = places + field(places) - targets
    return misses, (misses @ to_mm.T).norm(dim=1)


def _newton(field: Field, places: Tensor, targets: Tensor, to_mm: Tensor) -> tuple[Tensor, Tensor]:
    """Take one Newton step, halved where it does not help; a place that no step helps stays."""
    misses, errors = _misses(field, places, targets, to_mm)
    aside = STEP * torch.eye(3, dtype=places.dtype)
    a, b, c = ((_misses(field, places + side, targets, to_mm)[0] - misses) / STEP for side in aside)
    # Cramer's rule: a library's solver takes longer for many small systems than the rest of the inversion.
    across = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    determinant = (a * across[:, 0]).sum(1)
    flat = determinant.abs() < FLATTEST
    determinant = torch.where(flat, torch.where(determinant < 0, -FLATTEST, FLATTEST), determinant)
    step = -(across @ misses[..., None])[..., 0] / determinant[:, None]
    step = step * (LONGEST_STEP / step.norm(dim=1, keepdim=True).clamp(min=LONGEST_STEP))
    best, best_errors, left = places.clone(), errors.clone(), torch.arange(len(places))
    for halving in range(HALVINGS + 1):
        trial = places[left] + step[left] * 0.5**halving
        trial_errors = _misses(field, trial, targets[left], to_mm)[1]
        better = trial_errors < best_errors[left]
        best[left[better]], best_errors[left[better]] = trial[better], trial_errors[better]
        left = left[trial_errors >= ENOUGH * errors[left]]  # a step that barely helps ends at a kink of the field
        if not len(left):
            break
    return best, best_errors
