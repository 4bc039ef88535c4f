"""The steps of recipes: spacing, intensities to 0..1, one size for all scans."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import ResizeWithPadOrCrop
from monai.transforms.intensity.array import ScaleIntensityRange
from monai.transforms.spatial.array import Resize, Spacing
from nibabel.affines import voxel_sizes

from regcascade.data.io.images import as_meta

_ROUNDING = 1e-5  # of the directions in headers


def respaced(volume: MetaTensor, spacing: Sequence[float | int] | None, mode: str) -> MetaTensor:
    """Resample to a spacing in mm, or keep the scan's own (None); the centre of the first voxel stays where it is."""
    if spacing is None:
        return volume
    # MONAI begins where the scan does only if the axes are at right angles to 1e-8, and headers are rounded.
    volume = MetaTensor(volume.as_tensor(), affine=torch.from_numpy(_squared(np.asarray(volume.affine, dtype=float))))
    # float32 places a sample to 0.0001 voxels, in half the memory and a quarter of the time of MONAI's float64.
    resample = Spacing(spacing, mode=mode, padding_mode="border", align_corners=False, dtype=np.float32)
    return as_meta(resample(volume))


def windowed(scan: MetaTensor, window: Sequence[float], option: str = "window") -> MetaTensor:
    """Map a window (width, level) to 0..1 and clip; `option` names it in messages.

    Raises:
        ValueError: if the whole scan lies outside the window.
    """
    width, level = window
    low, high = level - width / 2, level + width / 2
    if scan.max() <= low or scan.min() >= high:
        raise ValueError(
            f"its intensities, {float(scan.min()):g} to {float(scan.max()):g}, lie outside "
            f"{option}=[{width:g},{level:g}] (width, level), so that nothing can be seen."
        )
    return scaled(scan, low, high)


def between_percentiles(scan: MetaTensor, percentiles: Sequence[float], option: str = "percentiles") -> MetaTensor:
    """Map two percentiles of a scan to 0 and 1 and clip; `option` names them in messages.

    Raises:
        ValueError: if both are the same intensity.
    """
    low, high = (float(value) for value in np.percentile(scan.numpy(), percentiles))
    if not high > low:
        raise ValueError(
            f"its percentiles {percentiles[0]:g} and {percentiles[1]:g} are both {low:g}, so that nearly all of it is "
            f"one value; widen {option}, or use {option.replace('percentiles', 'intensity')}=window."
        )
    return scaled(scan, low, high)


def resized(volume: MetaTensor, size: Sequence[int], is_label: bool) -> MetaTensor:
    """Stretch the field of view to a size, on half-pixel grids: linear for images, nearest for labels."""
    # Plain "nearest" would sit half a voxel off the image's half-pixel grid.
    mode = "nearest-exact" if is_label else "trilinear"
    return as_meta(Resize(size, mode=mode, align_corners=None if is_label else False)(volume))


def cropped_or_padded(volume: MetaTensor, size: Sequence[int], pad: float | str, is_label: bool) -> MetaTensor:
    """Cut or pad around the centre, by a value (labels: background) or, for `edge`, by the outermost voxels."""
    if pad == "edge":
        return as_meta(ResizeWithPadOrCrop(size, mode="edge")(volume))
    return as_meta(ResizeWithPadOrCrop(size, mode="constant", value=0.0 if is_label else pad)(volume))


def scaled(scan: MetaTensor, low: float, high: float) -> MetaTensor:
    """Map an intensity to 0 and a higher one to 1, and clip."""
    return as_meta(ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)(scan))


def _squared(affine: np.ndarray) -> np.ndarray:
    """Set the axes of an affine at right angles, if they are so up to the rounding of headers."""
    steps = voxel_sizes(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / steps)
    squared = affine.copy()
    squared[:3, :3] = left @ right * steps
    return squared if np.abs(squared[:3, :3] - affine[:3, :3]).max() <= _ROUNDING * steps.max() else affine
