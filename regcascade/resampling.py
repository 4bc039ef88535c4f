"""Images and label maps through an ITK transform, by SimpleITK."""

import numpy as np
import SimpleITK as sitk


def resampled(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform, fill: float | None = None) -> sitk.Image:
    """An image on another grid, by linear interpolation, in its own pixel type (rounded if that is of whole numbers).

    Args:
        image: 3D.
        grid: an image whose grid it takes.
        transform: from places of that grid to places of the image.
        fill: beyond the image; its minimum by default.

    Raises:
        ValueError: if the pixel type has no such `fill`.
    """
    kind = sitk.GetArrayViewFromImage(image).dtype
    whole = kind.kind in "iu"
    if fill is None:
        fill = float(np.nanmin(sitk.GetArrayViewFromImage(image)))
    elif whole and not (np.iinfo(kind).min <= fill <= np.iinfo(kind).max and fill == int(fill)):
        raise ValueError(f"fill={fill:g} is no {kind}, which the voxels of the image are.")
    # ITK cuts off decimals where the result is of whole numbers.
    wanted = sitk.sitkFloat64 if whole else image.GetPixelID()
    moved = sitk.Resample(image, grid, transform, sitk.sitkLinear, fill, wanted)
    return _like(np.rint(sitk.GetArrayFromImage(moved)).astype(kind), moved) if whole else moved


def resampled_labels(
    labels: sitk.Image, grid: sitk.Image, transform: sitk.Transform, interpolation: str = "nearest"
) -> sitk.Image:
    """A label map on another grid, its values and pixel type kept, 0 beyond it.

    Args:
        labels: 3D, whole numbers.
        grid: an image whose grid it takes.
        transform: from places of that grid to places of the labels.
        interpolation: `nearest`, or `linear`: the label with the largest trilinear share.
    """
    choices = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLabelLinear}
    if interpolation not in choices:
        raise ValueError(f"interpolation={interpolation}; it is nearest or linear.")
    voxels = sitk.GetArrayViewFromImage(labels)
    if voxels.dtype.kind in "iu":
        return sitk.Resample(labels, grid, transform, choices[interpolation], 0.0)
    if not (np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all()):
        raise ValueError("the labels are no whole numbers: this is no label map.")
    whole = _like(voxels.astype(np.int64), labels)
    return sitk.Cast(sitk.Resample(whole, grid, transform, choices[interpolation], 0.0), labels.GetPixelID())


def _like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result
