"""From a file to a case: reading, spacing, intensities to 0..1, and one size for all scans."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import ResizeWithPadOrCrop
from monai.transforms.intensity.array import ScaleIntensityRange
from monai.transforms.spatial.array import Resize, Spacing
from nibabel.affines import voxel_sizes
from torch import Tensor

from regcascade.data.case import Case
from regcascade.data.io.images import as_meta, read_header, read_volume, scan_name
from regcascade.data.io.landmarks import within
from regcascade.data.options import check_size, check_two_numbers
from regcascade.geometry.grid import Geometry
from regcascade.utils.registry import check_choice

LIVER_WINDOW = (290.0, 120.0)  # width and level in HU, the papers' CT preprocessing

FITS = ("crop_pad", "resample")
INTENSITIES = ("percentiles", "window")
EDGE = "edge"
_ROUNDING = 1e-5  # of the directions in headers


@dataclass(frozen=True)
class Preprocessing:
    """How a scan becomes a case. It is plain values, so that a checkpoint can hold it:
    `Preprocessing(**as_dict())`.

    The array axes stay in the file's order; nothing is flipped or reoriented. Intensities are mapped before
    the size changes, so that padding does not move a percentile. Images are resampled linearly, labels by
    nearest.

    Attributes:
        size: sides of every case in voxels.
        fit: `crop_pad` cuts or pads around the centre and keeps the voxels as they are; `resample` stretches
            the whole field of view to `size` (half-pixel linear interpolation), and the spacing changes with
            it.
        pad: what `crop_pad` adds: a value in 0..1 (labels get background), or `edge` to repeat the outermost
            voxels.
        intensity: `percentiles` maps those of each scan to 0 and 1, `window` a fixed range; both clip.
        percentiles: (low, high), in percent.
        window: (width, level) in the scan's units, such as Hounsfield.

    Raises:
        ValueError: for a value that is not valid, naming the option.
    """

    PREFIX: ClassVar[str] = "data."  # of the options' names in messages

    size: Sequence[int] = (128, 128, 128)
    fit: str = "resample"
    pad: float | str = 0.0
    intensity: str = "percentiles"
    percentiles: Sequence[float | int] = (1.0, 99.0)
    window: Sequence[float | int] = LIVER_WINDOW

    def __post_init__(self) -> None:
        check_choice(f"{self.PREFIX}fit", self.fit, FITS)
        check_choice(f"{self.PREFIX}intensity", self.intensity, INTENSITIES)
        percentiles = check_two_numbers(f"{self.PREFIX}percentiles", self.percentiles, "low, high")
        window = check_two_numbers(f"{self.PREFIX}window", self.window, "width, level")
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"{self.PREFIX}percentiles={list(percentiles)} is not valid: 0 <= low < high <= 100.")
        if not (window[0] > 0 and np.isfinite(window).all()):
            raise ValueError(f"{self.PREFIX}window={list(window)} is not valid: [width, level] needs a width above 0.")
        if self.pad != EDGE and (isinstance(self.pad, str | bool) or not 0 <= self.pad <= 1):
            raise ValueError(f"{self.PREFIX}pad={self.pad} is not valid: give a value in 0..1, or {EDGE}.")
        object.__setattr__(self, "size", check_size(f"{self.PREFIX}size", self.size))
        object.__setattr__(self, "percentiles", percentiles)
        object.__setattr__(self, "window", window)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def read(self, image: Path, label: Path | None = None, name: str = "", mask: Path | None = None) -> Case:
        """Read one scan, with its labels if there are any; the name defaults to the file's.

        Where a mask is given, the image is set to 0 outside it once its intensities are mapped.

        Raises:
            ValueError: naming the file, if it cannot be read, is not a 3D volume, has voxels that are not
                finite or all equal, or if the labels or the mask have another shape or are not whole numbers from 0 up.
        """
        header = read_header(image)
        scan = read_volume(image)
        check_intensities(scan, image)
        scan = self._named(scan, image)
        if mask is not None:
            scan = as_meta(scan * _inside(mask, image, header))
        scan = self.fitted(scan, is_label=False)
        labels = None if label is None else self._read_labels(label, image, header)
        x, y, z = (float(step) for step in voxel_sizes(np.asarray(scan.affine)))
        plain = scan.as_tensor().contiguous()
        return Case(name=name or scan_name(image), image=plain, spacing=(x, y, z), labels=labels)

    def _named(self, scan: MetaTensor, path: Path) -> MetaTensor:
        try:
            return self.in_unit_range(scan)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def in_unit_range(self, scan: MetaTensor) -> MetaTensor:
        """Intensities mapped to 0..1 and clipped.

        Raises:
            ValueError: if nothing of the scan lies within the window, or between the percentiles.
        """
        if self.intensity == "window":
            width, level = self.window
            low, high = level - width / 2, level + width / 2
            if scan.max() <= low or scan.min() >= high:
                raise ValueError(
                    f"its intensities, {float(scan.min()):g} to {float(scan.max()):g}, lie outside "
                    f"{self.PREFIX}window=[{width:g},{level:g}] (width, level), so that nothing can be seen."
                )
        else:
            low, high = (float(value) for value in np.percentile(scan.numpy(), self.percentiles))
            if not high > low:
                raise ValueError(
                    f"its percentiles {self.percentiles[0]:g} and {self.percentiles[1]:g} are both "
                    f"{low:g}, so that nearly all of it is one value; widen {self.PREFIX}percentiles, or use "
                    f"{self.PREFIX}intensity=window."
                )
        return as_meta(ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)(scan))

    def fitted(self, volume: MetaTensor, is_label: bool) -> MetaTensor:
        """A volume brought to `size`, its affine with it."""
        if self.fit == "crop_pad":
            if self.pad == EDGE:
                return as_meta(ResizeWithPadOrCrop(self.size, mode="edge")(volume))
            value = 0.0 if is_label else self.pad
            return as_meta(ResizeWithPadOrCrop(self.size, mode="constant", value=value)(volume))
        # Plain "nearest" would sit half a voxel off the image's half-pixel grid.
        mode = "nearest-exact" if is_label else "trilinear"
        return as_meta(Resize(self.size, mode=mode, align_corners=None if is_label else False)(volume))

    def _read_labels(self, path: Path, image: Path, header: Geometry) -> Tensor:
        return as_integers(self.fitted(_whole_numbers(path, image, header), is_label=True)).as_tensor()


def as_integers(labels: MetaTensor) -> MetaTensor:
    """Whole numbers as int16, or int32 where they need it."""
    smallest = torch.int16 if labels.max() <= torch.iinfo(torch.int16).max else torch.int32
    return as_meta(labels.to(smallest).contiguous())


def respaced(volume: MetaTensor, spacing: Sequence[float | int] | None, mode: str) -> MetaTensor:
    """Resampled to a spacing, the centre of the first voxel where it was; beyond the last, the border goes on."""
    if spacing is None:
        return volume
    # MONAI begins where the scan does only if the axes are at right angles to 1e-8, and headers are rounded.
    volume = MetaTensor(volume.as_tensor(), affine=torch.from_numpy(_squared(np.asarray(volume.affine, dtype=float))))
    # float32 places a sample to 0.0001 voxels, in half the memory and a quarter of the time of MONAI's float64.
    resample = Spacing(spacing, mode=mode, padding_mode="border", align_corners=False, dtype=np.float32)
    return as_meta(resample(volume))


def check_same_shape(image: Geometry, label: Geometry, image_path: Path, label_path: Path) -> None:
    """Raise ValueError naming both files if a label map does not have the shape of its image."""
    if image.shape != label.shape:
        raise ValueError(f"{label_path} has the shape {label.shape}, but its image {image_path} has {image.shape}.")


def _whole_numbers(path: Path, image: Path, header: Geometry) -> MetaTensor:
    """A label map or mask on the grid of its image."""
    check_same_shape(header, read_header(path), image, path)
    labels = read_volume(path)
    if not torch.isfinite(labels).all() or not torch.equal(labels, labels.round()) or labels.min() < 0:
        raise ValueError(f"{path}: labels must be whole numbers from 0 up; is this an image?")
    return labels


def _inside(path: Path, image: Path, header: Geometry) -> Tensor:
    """1 within a mask and 0 outside."""
    inside = _whole_numbers(path, image, header).as_tensor() > 0
    if not inside.any():
        raise ValueError(f"{path} is an empty mask: it leaves nothing of {image}.")
    return inside.float()


def check_intensities(scan: MetaTensor, path: Path) -> None:
    """Raise ValueError naming the file if a scan has voxels that are not finite, or all equal."""
    if not torch.isfinite(scan).all():
        raise ValueError(f"{path} has voxels that are NaN or infinite. Mend the file, or leave the scan out.")
    if scan.min() == scan.max():
        raise ValueError(f"{path} is constant: every voxel is {float(scan.min()):g}. Leave the scan out.")


def _squared(affine: np.ndarray) -> np.ndarray:
    """An affine with its axes at right angles, if it lacks that by no more than headers are rounded."""
    steps = voxel_sizes(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / steps)
    squared = affine.copy()
    squared[:3, :3] = left @ right * steps
    return squared if np.abs(squared[:3, :3] - affine[:3, :3]).max() <= _ROUNDING * steps.max() else affine


def points_after(
    points: Float[Tensor, "k 3"], shape: Sequence[int], preprocessing: Preprocessing
) -> Float[Tensor, "k 3"]:
    """Where landmarks of an image lie in its preprocessed version, in voxels of that; NaN if they were cut off.

    Convention: voxel centres have whole coordinates. `resample` keeps the outer borders in place, half a voxel beyond
    the outermost centres; `crop_pad` keeps the centre of the image.

    Args:
        points: `(K, 3)` in voxels of the image as read.
        shape: of the image as read.
        preprocessing: what it goes through.
    """
    before, after = torch.tensor(list(shape)), torch.tensor(list(preprocessing.size))
    if preprocessing.fit == "resample":
        moved = (points + 0.5) * (after / before) - 0.5
    else:
        # MONAI pads one voxel less at the start where the margin is odd; it crops from half of the side rounded down.
        shift = torch.where(after >= before, (after - before) // 2, after // 2 - before // 2)
        moved = points + shift
    return within(moved, preprocessing.size)
