"""The initial map, which lays the moving scan over the fixed one before the networks."""

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
from regcascade.geometry.grid import Geometry
from regcascade.geometry.itk import affine_transform
from regcascade.geometry.orientation import LPS_TO_RAS
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
LITTLE_OVERLAP = 0.25  # of the fixed grid; less is worth a warning
PROBES = 24  # along each axis, where overlap is looked for
MOST_STRETCH = 2.0  # largest change of length, or its inverse, between two scans of one kind
LESS_ALIKE = 0.02  # of the correlation coefficient, by which an alignment may be worse than a plain start, for borders
COARSE = 64  # voxels along each axis, on which starts are compared


class Start(NamedTuple):
    """The initial map.

    Attributes:
        name: which of `INITIALS` it is.
        affine: `4 x 4`, from mm of the fixed to mm of the moving scan, RAS.
        warning: why it is not the one asked for; empty where it is.
    """

    name: str
    affine: np.ndarray
    warning: str = ""


@dataclass(frozen=True)
class Prepared:
    """A pair as the networks see it.

    Attributes:
        fixed: `(1, x, y, z)` in 0..1, with its affine: from voxels of the networks' grid to mm of the fixed scan.
        moving: the same, on a grid that the initial map lays over the fixed one.
        start: the initial map.
        overlap: the part of the fixed grid that lies in the field of view of the moving scan.
    """

    fixed: MetaTensor
    moving: MetaTensor
    start: Start
    overlap: float


def prepare_pair(trained: Trained, fixed: Scan, moving: Scan, initial: str = "trained") -> Prepared:
    """Prepare a pair for the networks.

    Args:
        trained: prepares the images.
        fixed, moving: the scans.
        initial: one of `INITIALS`. All but `trained` resample the moving scan onto the fixed one's grid first.

    Raises:
        ValueError: if they do not overlap at all after that, or a scan cannot be prepared.
    """
    check_choice("initial", initial, tuple(INITIALS))
    with _of(fixed.name):
        target = trained.prepare(fixed)
        # What the networks' grid cuts off would draw the centre of gravity away.
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
    # A thin scan may lie between the probes.
    if overlap == 0 and not laid.contains(moving.geometry.probes(PROBES)).any():
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
    """Resample a prepared image by a map from mm of the grid to mm of its own; `(1, x, y, z)`, 0 beyond it."""
    resampled = sitk.Resample(as_itk(image), onto, affine_transform(affine), sitk.sitkLinear, 0.0)
    return torch.from_numpy(np.ascontiguousarray(sitk.GetArrayFromImage(resampled).T))[None]


def find_start(initial: str, fixed: MetaTensor, moving: MetaTensor, grids: tuple[Geometry, Geometry]) -> Start:
    """Find the start that is asked for; where an affine alignment goes astray, take the plain start that is most alike.

    An alignment has gone astray if it mirrors, stretches or shrinks by more than 2 along any direction, or leaves the
    scans less alike than a plain start does. That is the correlation over the whole fixed scan, nothing beyond the
    moving one; the alignment itself maximises that of the overlap alone, however small.

    Args:
        initial: `none`, `centres`, `moments` or `affine`.
        fixed, moving: the whole scans, in 0..1.
        grids: of the scans as they are.

    Raises:
        ValueError: if there is none because a scan is black.
    """
    if initial != "affine":
        return Start(initial, _plain(initial, fixed, moving, grids))
    plain = {name: _plain(name, fixed, moving, grids) for name in ("none", "centres", "moments")}
    alike = {name: _alike(fixed, moving, affine) for name, affine in plain.items()}
    best = max(alike, key=lambda name: alike[name])
    try:
        affine = align(fixed, moving)
        why = _astray(affine)
        if not why and (aligned := _alike(fixed, moving, affine)) < alike[best] - LESS_ALIKE:
            why = f"CC {aligned:.3f}, and {alike[best]:.3f} by {best}"
    except ValueError as error:
        why = str(error)
    if not why:
        return Start("affine", affine)
    return Start(
        best,
        plain[best],
        f"The affine alignment went astray ({why}), and --initial {best} took its place (CC {alike[best]:.3f}). Look "
        "at the picture; where that start is wrong too, align the scans beforehand and give --initial none.",
    )


def _plain(initial: str, fixed: MetaTensor, moving: MetaTensor, grids: tuple[Geometry, Geometry]) -> np.ndarray:
    """A translation."""
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


def _astray(affine: np.ndarray) -> str:
    """What makes a map impossible between scans of one kind; empty where it may be right."""
    if np.linalg.det(affine[:3, :3]) <= 0:
        return "it mirrors the scan"
    stretches = np.linalg.svd(affine[:3, :3], compute_uv=False)
    worst = max(stretches, key=lambda stretch: abs(np.log(stretch)))
    within = 1 / MOST_STRETCH <= worst <= MOST_STRETCH
    return "" if within else f"it changes lengths by a factor of {worst:.3g}"


def _alike(fixed: MetaTensor, moving: MetaTensor, affine: np.ndarray) -> float:
    """Correlation over the fixed scan; -1 where the moving one shows nothing there."""
    whole = as_itk(fixed)
    target = sitk.Shrink(whole, [max(1, side // COARSE) for side in whole.GetSize()])
    x, y = sitk.GetArrayFromImage(target).T.ravel(), _resampled(moving, target, affine).numpy().ravel()
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else -1.0


def labels_on(labels: sitk.Image, grid: MetaTensor) -> torch.Tensor:
    """Resample a label map onto the grid of a prepared image, `(1, 1, x, y, z)`; nearest, 0 beyond it.

    The grid may be sheared, as one affine map of another grid is, which ITK's resampling does not take.
    """
    geometry, size = Geometry.of_image(labels), tuple(grid.shape[1:])
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, 3).astype(float)
    voxels = np.round(geometry.to_voxels(apply_affine(_affine(grid), places))).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(geometry.shape))).all(-1)
    found = np.zeros(len(voxels), dtype=np.int32)
    found[inside] = sitk.GetArrayViewFromImage(labels).T[tuple(voxels[inside].T)]
    return torch.from_numpy(found.reshape(1, 1, *size))
