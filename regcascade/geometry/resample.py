"""Resample images and label maps through an ITK transform, some planes at a time: ITK's fields take float64 memory."""

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from regcascade.geometry.displacement import planes
from regcascade.geometry.grid import Geometry

CHUNK = 2**23  # voxels resampled at a time

# From places of a grid to places of an image, or a function that gives it for some planes of the grid.
Mover = sitk.Transform | Callable[[slice], sitk.Transform]


def resampled(image: sitk.Image, grid: Geometry, mover: Mover, fill: float | None = None) -> sitk.Image:
    """Resample an image onto another grid, linearly, in its own pixel type (rounded for integers).

    `fill` is the value beyond the image, which its pixel type must hold; by default it is the image's minimum.
    """
    kind = sitk.GetArrayViewFromImage(image).dtype
    whole = kind.kind in "iu"
    if fill is None:
        fill = float(np.nanmin(sitk.GetArrayViewFromImage(image)))
    elif whole and not (np.iinfo(kind).min <= fill <= np.iinfo(kind).max and fill == int(fill)):
        raise ValueError(f"fill={fill:g} is no {kind}, the type of the image's voxels.")
    # Where the result is of integers, ITK would truncate.
    wanted = sitk.sitkFloat64 if whole else image.GetPixelID()
    return _by_planes(image, grid, mover, sitk.sitkLinear, fill, wanted)


def resampled_labels(labels: sitk.Image, grid: Geometry, mover: Mover, interpolation: str = "nearest") -> sitk.Image:
    """Resample a 3D label map onto another grid; its values and pixel type stay, and 0 lies beyond it.

    `interpolation` is `nearest`, or `linear`: the label with the largest trilinear share.
    """
    choices = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLabelLinear}
    if interpolation not in choices:
        raise ValueError(f"interpolation={interpolation}; it is nearest or linear.")
    voxels = sitk.GetArrayViewFromImage(labels)
    if voxels.dtype.kind in "iu":
        return _by_planes(labels, grid, mover, choices[interpolation], 0.0, labels.GetPixelID())
    if not (np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all()):
        raise ValueError("the labels are not whole numbers: this is no label map.")
    whole = sitk.GetImageFromArray(voxels.astype(np.int64))
    whole.CopyInformation(labels)
    return sitk.Cast(_by_planes(whole, grid, mover, choices[interpolation], 0.0, sitk.sitkInt64), labels.GetPixelID())


def _by_planes(
    image: sitk.Image, grid: Geometry, mover: Mover, interpolator: int, fill: float, wanted: int
) -> sitk.Image:
    """Resample to the pixel type `wanted`, and round that to the pixel type of the image."""
    kind = sitk.GetArrayViewFromImage(image).dtype
    result = np.empty(grid.shape[::-1], kind)
    for rows in planes(grid.shape, CHUNK):
        onto = grid.part(rows).reference()
        transform = mover if isinstance(mover, sitk.Transform) else mover(rows)
        piece = sitk.Resample(image, onto, transform, interpolator, fill, wanted)
        voxels = sitk.GetArrayViewFromImage(piece)  # which lives no longer than the piece
        result[:, :, rows] = np.rint(voxels) if voxels.dtype.kind == "f" and kind.kind in "iu" else voxels
    return grid.as_itk(result.T)
