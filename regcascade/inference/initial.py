"""The initial map, from the fixed to the moving scan, before the networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import apply_affine

from regcascade.data.preprocessing.alignment import align, as_itk
from regcascade.geometry.grid import LPS_TO_RAS, Geometry
from regcascade.geometry.itk import affine_transform
from regcascade.inference.model import Trained
from regcascade.inference.scans import Scan
from regcascade.utils.registry import check_choice

INITIALS = {
    "trained": "as in training, each scan prepared by itself, so that their grids lie over one another",
    "none": "where their headers put them",
    "centres": "the centres of their fields of view together",
    "moments": "the centres of gravity of their intensities together",
    "affine": "an affine map, found by correlation; where that goes astray the best of the above but the first",
}
LITTLE_OVERLAP = 0.25  # of the fixed grid; less gives a warning
PROBES = 24  # points along each axis that measure overlap
MOST_STRETCH = 2.0  # largest plausible change of length, or its inverse
LESS_ALIKE = 0.02  # how much lower an alignment's CC may be than a plain start's, because of borders
COARSE = 64  # voxels along each axis for comparing starts


class Start(NamedTuple):
    """The initial map.

    Attributes:
        name: one of `INITIALS`.
        affine: `4 x 4`, from mm of the fixed to mm of the moving scan, RAS.
        warning: why it is not the one asked for, else empty.
    """

    name: str
    affine: np.ndarray
    warning: str = ""


@dataclass(frozen=True)
class Prepared:
    """A pair as the networks see it.

    Attributes:
        fixed, moving: `(1, x, y, z)` in 0..1, with affines from voxels to mm of the own scan; the initial map lays the
            moving grid over the fixed one.
        start: the initial map.
        overlap: part of the fixed grid inside the moving scan's field of view, 0..1.
    """

    fixed: MetaTensor
    moving: MetaTensor
    start: Start
    overlap: float


def prepare_pair(trained: Trained, fixed: Scan, moving: Scan, initial: str = "trained") -> Prepared:
    """Prepare a pair for the networks. Every `initial` but `trained` resamples the moving scan onto the fixed grid.

    Raises:
        ValueError: if the scans do not overlap after the initial map, or one cannot be prepared.
    """
    check_choice("initial", initial, tuple(INITIALS))
    with _of(fixed.name):
        target = trained.prepare(fixed)
        # The networks' grid may crop the scan, which moves its centre of gravity.
        whole = trained.prepare(fixed, whole=True) if initial in ("moments", "affine") else target
    with _of(moving.name):
        source = trained.prepare(moving, whole=initial != "trained")
    if initial == "trained":
        start = Start(initial, _affine(source) @ np.linalg.inv(_affine(target)))
    else:
        with _of(f"{moving.name} onto {fixed.name}"):
            start = find_start(initial, whole, source, (fixed.geometry, moving.geometry))
    x, y, z = target.shape[1:]
    laid = Geometry((x, y, z), start.affine @ _affine(target))  # the networks' grid in the world of the moving scan
    axes = [np.linspace(0, side - 1, PROBES) for side in laid.shape]
    probes = laid.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3))
    overlap = float(moving.geometry.contains(probes).mean())
    if overlap == 0 and not laid.contains(moving.geometry.probes(PROBES)).any():  # a thin scan may lie between probes
        raise ValueError(
            f"{fixed.name} and {moving.name} do not overlap in space (initial={initial}): lay one over the other "
            "first, by --initial centres, moments or affine."
        )
    if initial != "trained":
        voxels = _resampled(source, as_itk(target), start.affine)
        source = MetaTensor(voxels, affine=torch.from_numpy(laid.affine.copy()))
    return Prepared(target, source, start, overlap)


@contextmanager
def _of(name: str) -> Iterator[None]:
    """Put a name before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _affine(image: MetaTensor) -> np.ndarray:
    return np.asarray(image.affine, dtype=float)


def _resampled(image: MetaTensor, onto: sitk.Image, affine: np.ndarray) -> torch.Tensor:
    """Resample a prepared image by a map from mm of a grid to its own mm; `(1, x, y, z)`, 0 outside."""
    resampled = sitk.Resample(as_itk(image), onto, affine_transform(affine), sitk.sitkLinear, 0.0)
    return torch.from_numpy(np.ascontiguousarray(sitk.GetArrayFromImage(resampled).T))[None]


def find_start(initial: str, fixed: MetaTensor, moving: MetaTensor, grids: tuple[Geometry, Geometry]) -> Start:
    """Find the initial map. If an affine alignment goes astray, take the plain start with the highest CC.

    An alignment goes astray if it mirrors, changes a length by more than a factor of 2, or has a lower CC than a plain
    start. This CC is over the whole fixed scan, with 0 outside the moving one; the alignment maximises the CC of the
    overlap alone, however small.

    Args:
        initial: `none`, `centres`, `moments` or `affine`.
        fixed, moving: the whole scans, in 0..1.
        grids: their grids before preparation.

    Raises:
        ValueError: if a scan is black.
    """
    if initial != "affine":
        return Start(initial, _plain(initial, fixed, moving, grids))
    plain = {name: _plain(name, fixed, moving, grids) for name in ("none", "centres", "moments")}
    alike = {name: _alike(fixed, moving, affine) for name, affine in plain.items()}
    best = max(alike, key=lambda name: alike[name])
    try:
        affine = align(fixed, moving)
        stretches = np.linalg.svd(affine[:3, :3], compute_uv=False)
        worst = max(stretches, key=lambda stretch: abs(np.log(stretch)))
        if np.linalg.det(affine[:3, :3]) <= 0:
            why = "it mirrors the scan"
        elif not 1 / MOST_STRETCH <= worst <= MOST_STRETCH:
            why = f"it changes lengths by a factor of {worst:.3g}"
        elif (aligned := _alike(fixed, moving, affine)) < alike[best] - LESS_ALIKE:
            why = f"CC {aligned:.3f}, and {alike[best]:.3f} by {best}"
        else:
            return Start("affine", affine)
    except ValueError as error:
        why = str(error)
    return Start(
        best,
        plain[best],
        f"The affine alignment went astray ({why}), and --initial {best} took its place (CC {alike[best]:.3f}). Look "
        "at the picture; where that start is wrong too, align the scans beforehand and give --initial none.",
    )


def _plain(initial: str, fixed: MetaTensor, moving: MetaTensor, grids: tuple[Geometry, Geometry]) -> np.ndarray:
    """The map of a plain start, a translation."""
    affine = np.eye(4)
    if initial == "centres":
        here, there = (grid.to_world((np.array(grid.shape)[None] - 1) / 2)[0] for grid in grids)
        affine[:3, 3] = there - here
    elif initial == "moments":
        moments = sitk.CenteredTransformInitializerFilter.MOMENTS
        try:
            found = sitk.CenteredTransformInitializer(as_itk(fixed), as_itk(moving), sitk.Euler3DTransform(), moments)
        except RuntimeError as error:
            raise ValueError("one of them is all black, without a centre.") from error
        affine[:3, 3] = LPS_TO_RAS[:3, :3] @ np.array(sitk.Euler3DTransform(found).GetTranslation())
    return affine


def _alike(fixed: MetaTensor, moving: MetaTensor, affine: np.ndarray) -> float:
    """CC over the fixed scan; -1 if the moving scan is constant there."""
    whole = as_itk(fixed)
    target = sitk.Shrink(whole, [max(1, side // COARSE) for side in whole.GetSize()])
    x, y = sitk.GetArrayFromImage(target).T.ravel(), _resampled(moving, target, affine).numpy().ravel()
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else -1.0


def labels_on(labels: sitk.Image, grid: MetaTensor) -> torch.Tensor:
    """Resample a label map onto the grid of a prepared image, `(1, 1, x, y, z)`; nearest, 0 outside.

    The grid may be sheared, which ITK's resampling does not support.
    """
    geometry, size = Geometry.of_image(labels), tuple(grid.shape[1:])
    places = np.indices(size, dtype=float).reshape(3, -1).T
    voxels = np.round(geometry.to_voxels(apply_affine(_affine(grid), places))).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(geometry.shape))).all(-1)
    found = np.zeros(len(voxels), dtype=np.int32)
    found[inside] = sitk.GetArrayViewFromImage(labels).T[tuple(voxels[inside].T)]
    return torch.from_numpy(found.reshape(1, 1, *size))
