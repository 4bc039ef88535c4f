"""Where the liver lies in a CT scan: the papers' search by thresholds, or the box of its labels.

The search runs on a grid of about 2.5 mm and its lengths are in mm, so that it takes a second or so and finds the same
at any spacing. The papers counted pixels; theirs measured about 0.75 mm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import SpatialCrop
from monai.transforms.spatial.array import Resize
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy.ndimage import find_objects, gaussian_filter, label, uniform_filter

from regcascade.data.io.images import as_meta

# The papers': Hounsfield units from and to, in their order, and lengths in pixels.
WINDOWS_HU = (
    (80, 140), (110, 160), (70, 90), (60, 80), (50, 70), (40, 60), (30, 50), (20, 40), (10, 30), (140, 180), (160, 200),
)  # fmt: skip
PIXEL_MM = 0.75
SMOOTHING_MM = 2 * PIXEL_MM  # standard deviation
RADIUS_MM = 35 * PIXEL_MM  # of the median filter
LEAST_MARGIN_MM = 5 * PIXEL_MM
MARGIN = 0.1

SEARCH_MM = 2.5  # the grid of the search; no axis is made finer
SMALLEST_ML = 50.0  # less is no liver; that of a small child has several times as much


class Box(NamedTuple):
    """A box of voxels, those from `start` up to and without `stop` along each array axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]


def find_liver(scan: MetaTensor) -> Box:
    """The box of the liver in a CT scan, without a margin.

    For each window of Hounsfield units: what lies within, smoothed; its median filter in every axial slice; the largest
    connected part. The largest of all windows is the liver, for the filter leaves nothing that is thin, such as the
    wall of the body, and the liver is the largest organ of one density.

    Args:
        scan: `(1, X, Y, Z)` in Hounsfield units, of any orientation.

    Raises:
        ValueError: if nothing of the size of a liver is found, or the scan's values are none of Hounsfield's.
    """
    # As of eight bits: windowed, with bone at the top.
    if scan.min() >= 0 and 250 <= scan.max() <= 255:
        raise ValueError(
            f"its values run from {float(scan.min()):g} to {float(scan.max()):g}, which are no Hounsfield units to "
            "search a liver by; crop=none and window=[255,127.5] suit a scan that is cropped and windowed already."
        )
    # Means of blocks, rather than every third voxel, because a scan's noise is as wide as a window.
    coarse = as_meta(Resize(_search_shape(scan), mode="area")(scan))
    spacing = voxel_sizes(np.asarray(coarse.affine))
    smooth = gaussian_filter(coarse.numpy()[0], SMOOTHING_MM / spacing)
    sides = _filter_sides(coarse, spacing)
    largest, count = None, 0
    for low, high in WINDOWS_HU:
        # The median of a mask is whether more than half of the voxels around are in it.
        solid = uniform_filter(((smooth >= low) & (smooth <= high)).astype(np.float32), sides, mode="nearest") > 0.5
        part = _largest_part(solid, more_than=count)
        if part is not None:
            largest, count = part, int(part.sum())
    volume_ml = count * float(np.prod(spacing)) / 1000
    if largest is None or volume_ml < SMALLEST_ML:
        raise ValueError(
            f"no liver is found: the largest organ of one density has {volume_ml:.0f} ml, of at least "
            f"{SMALLEST_ML:.0f}. Is it a CT scan of the abdomen in Hounsfield units? With a label map of the liver "
            "choose crop=labels; otherwise leave the scan out."
        )
    factors = np.array(scan.shape[1:]) / np.array(largest.shape)
    found = _bounding_box(largest)
    return Box(_three(np.floor(found.start * factors)), _three(np.ceil(found.stop * factors)))


def label_box(labels: MetaTensor, values: Sequence[int] | None = None) -> Box:
    """The box of some label values in `(1, X, Y, Z)`, of all above 0 by default, without a margin.

    Raises:
        ValueError: if none of them is there.
    """
    voxels = labels.numpy()[0]
    chosen = voxels > 0 if values is None else np.isin(voxels, list(values))
    if not chosen.any():
        wanted = "above 0" if values is None else f"of {list(values)}"
        raise ValueError(f"its label map has no label {wanted} to crop around; choose others, or crop=threshold.")
    return _bounding_box(chosen)


def pad_box(box: Box, scan: MetaTensor, margin: float = MARGIN) -> Box:
    """A box grown on every side by a fraction of its length along that axis, and by 3.75 mm at least (the papers' 5
    pixels), but not beyond the scan.

    It ends with the scan rather than going on with made-up voxels: their edge would be no anatomy, and yet the
    strongest there is to register.
    """
    start, stop = np.array(box.start), np.array(box.stop)
    spacing = voxel_sizes(np.asarray(scan.affine))
    extra = np.ceil(np.maximum(margin * (stop - start), LEAST_MARGIN_MM / spacing) - 1e-6)
    return Box(_three(np.maximum(start - extra, 0)), _three(np.minimum(stop + extra, scan.shape[1:])))


def crop_to_box(volume: MetaTensor, box: Box) -> MetaTensor:
    """What lies in a box, its affine with it."""
    return as_meta(SpatialCrop(roi_start=box.start, roi_end=box.stop)(volume))


def world_bounds(box: Box, affine: Float[np.ndarray, "4 4"]) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """The lowest and the highest coordinates, in mm along the world's axes, of the voxels of a box, faces included."""
    faces = np.array([box.start, box.stop]) - 0.5
    corners = np.stack(np.meshgrid(*faces.T, indexing="ij"), axis=-1).reshape(-1, 3)
    world = apply_affine(affine, corners)
    return world.min(axis=0), world.max(axis=0)


def _search_shape(scan: MetaTensor) -> tuple[int, int, int]:
    spacing = voxel_sizes(np.asarray(scan.affine))
    sides = np.array(scan.shape[1:])
    return _three(np.clip(np.round(sides * spacing / SEARCH_MM), 1, sides))


def _filter_sides(scan: MetaTensor, spacing: Float[np.ndarray, " 3"]) -> list[int]:
    """Voxels along each side of the median filter: 1 across the axial slices."""
    axes = aff2axcodes(np.asarray(scan.affine))
    return [
        1 if axis in ("S", "I") else 2 * round(RADIUS_MM / step) + 1
        for axis, step in zip(axes, spacing.tolist(), strict=True)
    ]


def _largest_part(mask: Bool[np.ndarray, "x y z"], more_than: int) -> Bool[np.ndarray, "x y z"] | None:
    """The largest connected part of a mask; None if it has no more than a number of voxels.

    MONAI's `KeepLargestConnectedComponent` would need scikit-image, which nothing else here does.
    """
    if np.count_nonzero(mask) <= more_than:
        return None
    parts, _ = label(mask)
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    return parts == counts.argmax() if counts.max() > more_than else None


def _bounding_box(mask: Bool[np.ndarray, "x y z"]) -> Box:
    (slices,) = find_objects(mask.astype(np.uint8), max_label=1)
    return Box(_three([part.start for part in slices]), _three([part.stop for part in slices]))


def _three(values: Sequence[int] | np.ndarray) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z
