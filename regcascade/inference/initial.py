"""What comes before the networks: how the moving scan is first laid over the fixed one."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import apply_affine

from regcascade.data.preprocessing.alignment import as_itk
from regcascade.geometry.grid import Geometry
from regcascade.inference.model import Trained
from regcascade.inference.scans import Scan
from regcascade.inference.start import Start, find_start, itk_affine
from regcascade.utils.registry import check_choice

INITIALS = {
    "trained": "as in training, each scan prepared by itself, so that their grids lie over one another",
    "none": "where their headers put them",
    "centres": "the centres of their fields of view together",
    "moments": "the centres of gravity of their intensities together",
    "affine": "an affine map, found by correlation; where that goes astray the best of the above but the first",
}
LITTLE_OVERLAP = 0.25  # of the fixed grid
PROBES = 24  # along each axis, where overlap is looked for


@dataclass(frozen=True)
class Prepared:
    """A pair as the networks see it.

    Attributes:
        fixed: `(1, x, y, z)` in 0..1, with its affine: from voxels of the networks' grid to mm of the fixed scan.
        moving: the same, on a grid that lies over the fixed one by `affine`.
        start: the initial map.
        overlap: which part of the fixed grid lies in the field of view of the moving scan.
    """

    fixed: MetaTensor
    moving: MetaTensor
    start: Start
    overlap: float

    @property
    def affine(self) -> np.ndarray:
        """The initial map, `4 x 4`, from mm of the fixed to mm of the moving scan, RAS."""
        return self.start.affine

    @property
    def grid(self) -> np.ndarray:
        """From voxels of the networks' grid to mm of the fixed scan, RAS."""
        return np.asarray(self.fixed.affine, dtype=float)


def prepare_pair(trained: Trained, fixed: Scan, moving: Scan, initial: str = "trained") -> Prepared:
    """Make a pair ready for the networks.

    Args:
        trained: says how images are made.
        fixed, moving: as they are.
        initial: one of `INITIALS`. All but `trained` resample the moving scan onto the fixed one's grid first.

    Raises:
        ValueError: if they do not overlap at all once that is done, or a scan cannot be prepared.
    """
    check_choice("initial", initial, tuple(INITIALS))
    images = [_prepared(trained, scan, whole) for scan, whole in ((fixed, False), (moving, initial != "trained"))]
    target, source = images
    if initial == "trained":
        start = Start(initial, np.asarray(source.affine, dtype=float) @ np.linalg.inv(np.asarray(target.affine, float)))
    else:
        # Of all that the fixed scan shows: what the networks' grid cuts off would draw its centre of gravity away.
        whole = _prepared(trained, fixed, True) if initial in ("moments", "affine") else target
        start = _start(initial, fixed, moving, whole, source)
    affine = start.affine
    overlap = _overlap(target, affine, moving.geometry)
    if overlap == 0 and not _covers(target, affine, moving.geometry):
        raise ValueError(
            f"{fixed.name} and {moving.name} do not overlap in space (initial={initial}): lay one over the other "
            "first, by --initial centres, moments or affine."
        )
    if initial != "trained":
        source = _resampled(source, target, affine)
    return Prepared(target, source, start, overlap)


def _prepared(trained: Trained, scan: Scan, whole: bool) -> MetaTensor:
    try:
        return trained.prepare(scan, whole)
    except ValueError as error:
        raise ValueError(f"{scan.name}: {error}") from error


def _start(initial: str, fixed: Scan, moving: Scan, target: MetaTensor, source: MetaTensor) -> Start:
    try:
        return find_start(initial, target, source, (fixed.geometry, moving.geometry))
    except ValueError as error:
        raise ValueError(f"{moving.name} onto {fixed.name}: {error}") from error


def _overlap(target: MetaTensor, affine: np.ndarray, moving: Geometry) -> float:
    """Which part of a grid lies in the field of view of the moving scan, by probing."""
    axes = [np.linspace(0, side - 1, PROBES) for side in target.shape[1:]]
    probes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return float(moving.contains(apply_affine(affine @ np.asarray(target.affine, dtype=float), probes)).mean())


def _covers(target: MetaTensor, affine: np.ndarray, moving: Geometry) -> bool:
    """Whether a grid has anything of the moving scan in it, which may be thin enough to lie between its probes."""
    grid = Geometry((target.shape[1], target.shape[2], target.shape[3]), affine @ np.asarray(target.affine))
    return bool(grid.contains(moving.probes(PROBES)).any())


def _resampled(image: MetaTensor, onto: MetaTensor, affine: np.ndarray) -> MetaTensor:
    """A prepared image on the grid of another, by a map from mm of that to mm of its own; 0 beyond it."""
    resampled = sitk.Resample(as_itk(image), as_itk(onto), itk_affine(affine), sitk.sitkLinear, 0.0)
    voxels = torch.from_numpy(np.ascontiguousarray(sitk.GetArrayFromImage(resampled).T))[None]
    return MetaTensor(voxels, affine=torch.from_numpy(affine @ np.asarray(onto.affine, dtype=float)))


def labels_on(labels: sitk.Image, grid: MetaTensor) -> torch.Tensor:
    """A label map on the grid of a prepared image, `(1, 1, x, y, z)`; nearest, 0 beyond it.

    The grid may be sheared, as an affine map of another one is, which ITK's own resampling does not take.
    """
    geometry, size = Geometry.of_image(labels), tuple(grid.shape[1:])
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, 3).astype(float)
    voxels = np.round(geometry.to_voxels(apply_affine(np.asarray(grid.affine, dtype=float), places))).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(geometry.shape))).all(-1)
    found = np.zeros(len(voxels), dtype=np.int32)
    found[inside] = sitk.GetArrayViewFromImage(labels).T[tuple(voxels[inside].T)]
    return torch.from_numpy(found.reshape(1, 1, *size))
