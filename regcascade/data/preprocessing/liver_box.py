"""Find the liver in a CT scan: the papers' search by thresholds, or the box of its labels.

The search runs on a grid of about 2.5 mm with lengths in mm, so that it takes about a second and finds the same at any
spacing. The papers count pixels, of about 0.75 mm.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import SpatialCrop
from monai.transforms.spatial.array import Resize
from monai.transforms.utils import generate_spatial_bounding_box
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy.ndimage import gaussian_filter, label, uniform_filter

from regcascade.data.io.images import as_meta

# The papers' windows, Hounsfield units from and to, in their order, and their lengths.
WINDOWS_HU = (
    (80, 140), (110, 160), (70, 90), (60, 80), (50, 70), (40, 60), (30, 50), (20, 40), (10, 30), (140, 180), (160, 200),
)  # fmt: skip
PIXEL_MM = 0.75
SMOOTHING_MM = 2 * PIXEL_MM  # standard deviation
RADIUS_MM = 35 * PIXEL_MM  # of the median filter
LEAST_MARGIN_MM = 5 * PIXEL_MM
MARGIN = 0.1

SEARCH_MM = 2.5  # the grid of the search; no axis is made finer
SMALLEST_ML = 50.0  # less is no liver; a small child's has several times as much


class Box(NamedTuple):
    """A box of voxels, from `start` up to but without `stop` along each array axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]


def find_liver(scan: MetaTensor) -> Box:
    """Find the box of the liver in a CT scan, without a margin.

    For each window of Hounsfield units, the smoothed voxels within it pass a median filter in every axial slice, which
    removes what is thin, such as the body's wall. The largest connected part over all windows is the liver.

    Args:
        scan: `(1, X, Y, Z)` in Hounsfield units, of any orientation.

    Raises:
        ValueError: if nothing as large as a liver is found, or the values are not Hounsfield units.
    """
    # As of eight bits: windowed, with bone at the top.
    if scan.min() >= 0 and 250 <= scan.max() <= 255:
        raise ValueError(
            f"its values run from {float(scan.min()):g} to {float(scan.max()):g}, which are no Hounsfield units to "
            "search a liver by; crop=none and window=[255,127.5] suit a scan that is cropped and windowed already."
        )
    # Means of blocks, rather than every third voxel, because a scan's noise is as wide as a window.
    sides = np.array(scan.shape[1:])
    coarse_sides = np.clip(np.round(sides * voxel_sizes(np.asarray(scan.affine)) / SEARCH_MM), 1, sides).astype(int)
    coarse = as_meta(Resize(coarse_sides.tolist(), mode="area")(scan))
    spacing, axes = voxel_sizes(np.asarray(coarse.affine)), aff2axcodes(np.asarray(coarse.affine))
    smooth = gaussian_filter(coarse.numpy()[0], SMOOTHING_MM / spacing)
    width = [2 * round(RADIUS_MM / step) + 1 for step in spacing.tolist()]  # voxels, of the median filter
    width[next(axis for axis, code in enumerate(axes) if code in ("S", "I"))] = 1
    largest, count = None, 0
    for low, high in WINDOWS_HU:
        # The median of a mask is whether more than half of the voxels around are in it.
        solid = uniform_filter(((smooth >= low) & (smooth <= high)).astype(np.float32), width, mode="nearest") > 0.5
        if np.count_nonzero(solid) > count:
            parts, _ = label(solid)
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0  # of the background
            if sizes.max() > count:
                largest, count = parts == sizes.argmax(), int(sizes.max())
    volume_ml = count * float(np.prod(spacing)) / 1000
    if largest is None or volume_ml < SMALLEST_ML:
        raise ValueError(
            f"no liver is found: the largest organ of one density has {volume_ml:.0f} ml, of at least "
            f"{SMALLEST_ML:.0f}. Is it a CT scan of the abdomen in Hounsfield units? With a label map of the liver "
            "choose crop=labels; otherwise leave the scan out."
        )
    factors = sides / np.array(largest.shape)
    start, stop = generate_spatial_bounding_box(largest[None])
    return _box(np.floor(start * factors), np.ceil(stop * factors))


def label_box(labels: MetaTensor, values: Sequence[int] | None = None) -> Box:
    """Find the box of label values in `(1, X, Y, Z)`, of all above 0 by default, without a margin.

    Raises:
        ValueError: if none of them occurs.
    """
    voxels = labels.numpy()[0]
    chosen = voxels > 0 if values is None else np.isin(voxels, list(values))
    if not chosen.any():
        wanted = "above 0" if values is None else f"of {list(values)}"
        raise ValueError(f"its label map has no label {wanted} to crop around; choose others, or crop=threshold.")
    return _box(*generate_spatial_bounding_box(chosen[None]))


def pad_box(box: Box, scan: MetaTensor, margin: float = MARGIN) -> Box:
    """Grow a box on every side by a fraction of its length, at least 3.75 mm (the papers' 5 pixels), within the scan.

    The edge of padding beyond the scan would be no anatomy, but the strongest edge to register.
    """
    start, stop = np.array(box.start), np.array(box.stop)
    spacing = voxel_sizes(np.asarray(scan.affine))
    extra = np.ceil(np.maximum(margin * (stop - start), LEAST_MARGIN_MM / spacing) - 1e-6)
    return _box(np.maximum(start - extra, 0), np.minimum(stop + extra, scan.shape[1:]))


def crop_to_box(volume: MetaTensor, box: Box) -> MetaTensor:
    """Cut out a box; the affine follows."""
    return as_meta(SpatialCrop(roi_start=box.start, roi_end=box.stop)(volume))


def _box(start: Iterable[Any], stop: Iterable[Any]) -> Box:
    (x, y, z), (i, j, k) = (tuple(int(value) for value in corner) for corner in (start, stop))
    return Box((x, y, z), (i, j, k))
