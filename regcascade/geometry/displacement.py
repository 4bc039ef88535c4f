"""A displacement field on a scan's grid: values anywhere, determinants, and the inversion.

Coordinates here are voxels of the field's own grid; a field is continued beyond its border by the nearest border voxel,
as everything in `spatial`, so that the map of a field is defined, and has an inverse, everywhere.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from nibabel.affines import apply_affine
from torch import Tensor

from regcascade.geometry.grid import Places
from regcascade.geometry.warp import jacobian_det, sample_at
from regcascade.types import Size

CHUNK = 2**20  # points that are worked on at a time
FIXED_POINT, NEWTON = 12, 20  # iterations at most
HALVINGS = 4  # of a Newton step that makes things worse
ENOUGH, HELPFUL = 0.75, 0.99  # of the error: below the first a step is long enough; above the second, given up
LONGEST_STEP = 4.0  # voxels, of a Newton step
STEP = 0.05  # voxels, of the differences that a Newton step takes
FLATTEST = 1e-2  # determinant that a Newton step assumes where there is less, in folds

Vectors = Float[np.ndarray, "x y z 3"]
Coordinates = Float[Tensor, "k 3"]
Field = Callable[[Coordinates], Coordinates]


def as_volume(vectors: Vectors) -> Float[Tensor, "1 3 x y z"]:
    """Vectors per voxel as the tensor that `spatial` samples; a view."""
    return torch.from_numpy(vectors).permute(3, 0, 1, 2)[None]


def as_field(vectors: Vectors, to_voxels: Float[np.ndarray, "3 3"]) -> Field:
    """What `inverted` inverts: trilinear values of `to_voxels vectors`, in the precision of the places asked for."""
    volume, turn = as_volume(vectors), torch.from_numpy(to_voxels.T.copy())

    def field(places: Coordinates) -> Coordinates:
        return sample_at(volume, places[None])[0] @ turn.to(places.dtype)

    return field


def values_at(volume: Float[Tensor, "1 3 x y z"], voxels: Places) -> Places:
    """Trilinear values at places in voxels, in the volume's precision; NaN where a place is NaN."""
    return sample_at(volume, torch.from_numpy(voxels).to(volume.dtype)[None])[0].numpy()


def planes(shape: Size, chunk: int | None = None) -> Iterator[slice]:
    """The planes of a grid along the first axis, some at a time, of about `chunk` voxels (`CHUNK`)."""
    count = max(1, (chunk or CHUNK) // (shape[1] * shape[2]))
    for start in range(0, shape[0], count):
        yield slice(start, min(start + count, shape[0]))


def slabs(shape: Size) -> Iterator[tuple[slice, Places]]:
    """The voxel coordinates of a grid, some planes along the first axis at a time, and which planes."""
    for rows in planes(shape):
        axes = (np.arange(rows.start, rows.stop), np.arange(shape[1]), np.arange(shape[2]))
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        yield rows, grid.reshape(-1, 3).astype(np.float64)


def sampled(
    volume: Float[Tensor, "1 3 _ _ _"], to_voxels: np.ndarray, shape: Size, turn: Float[np.ndarray, "3 3"]
) -> Vectors:
    """A field at every voxel of another grid, float32.

    Args:
        volume: the field.
        to_voxels: `4 x 4`, from voxels of the other grid to voxels of the field.
        shape: of the other grid.
        turn: what each vector is then multiplied by.
    """
    result = np.empty((*shape, 3), np.float32)
    for rows, voxels in slabs(shape):
        result[rows] = (values_at(volume, apply_affine(to_voxels, voxels)) @ turn.T).reshape(result[rows].shape)
    return result


def determinants(vectors: Vectors, to_voxels: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "x y z"]:
    """Determinant of the Jacobian of `p -> p + to_voxels vectors(p)`, in voxels, by forward differences.

    As `geometry.warp.jacobian_det`, but of the whole grid: the last plane along each axis takes the backward
    difference.
    """
    x, y, z = vectors.shape[:3]
    result = np.empty((x, y, z), np.float32)
    for rows in planes((x, y, z)):
        start, stop = rows.start, rows.stop
        if stop < len(vectors):
            block = vectors[start : stop + 1]
        else:
            block = _continued(vectors[max(start - 1, 0) :], 0)[-(stop - start) - 1 :]
        block = block @ to_voxels.T.astype(np.float32)
        result[start:stop] = jacobian_det(as_volume(_continued(_continued(block, 1), 2)))[0].numpy()
    return result


def _continued(vectors: Vectors, axis: int) -> np.ndarray:
    """One more plane, along which the last difference goes on."""
    last = np.take(vectors, [-1], axis)
    before = np.take(vectors, [-2], axis) if vectors.shape[axis] > 1 else last
    return np.concatenate([vectors, 2 * last - before], axis)


def inverted(
    field: Field, targets: Coordinates, to_mm: Float[Tensor, "3 3"], tolerance: float
) -> tuple[Coordinates, Float[Tensor, " k"]]:
    """The places that a field takes to the targets: `p + field(p) = target`.

    Fixed-point iterations `p <- target - field(p)`, which converge where the field changes by less than a voxel a
    voxel, then damped Newton steps at the places that are left.

    Args:
        field: displacements in voxels at places in voxels.
        targets: in voxels.
        to_mm: from voxel steps to mm in the world of the targets.
        tolerance: mm, from which on a place counts as found.

    Returns:
        The places in voxels, and how far from their target they are taken, in mm. It is above the tolerance where no
        place was found; NaN where the target is.
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
    """By how much places are taken past their targets, in voxels, and the length of it in mm."""
    misses = places + field(places) - targets
    return misses, (misses @ to_mm.T).norm(dim=1)


def _newton(field: Field, places: Tensor, targets: Tensor, to_mm: Tensor) -> tuple[Tensor, Tensor]:
    """One step, halved where it does not help; places that no step helps stay."""
    misses, errors = _misses(field, places, targets, to_mm)
    aside = STEP * torch.eye(3, dtype=places.dtype)
    a, b, c = ((_misses(field, places + side, targets, to_mm)[0] - misses) / STEP for side in aside)
    # Cramer's rule: a library's solver takes longer for many small systems than everything else here.
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
