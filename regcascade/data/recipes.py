"""Recipes: what `regcascade prepare` does to a raw scan, step by step, with MONAI's transforms.

Each takes the scan to RAS axis order first, and gives images in 0..1 and labels on one grid, whose affine still tells
where every voxel lies in the world of the raw scan.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import ResizeWithPadOrCrop, SpatialCrop, SpatialPad
from monai.transforms.intensity.array import ScaleIntensityRange
from monai.transforms.spatial.array import Orientation, Spacing
from monai.transforms.utils import generate_spatial_bounding_box

from regcascade.data.options import check_size, check_two_numbers
from regcascade.data.preprocessing import Preprocessing
from regcascade.registry import Registry, Spec, check_choice

MASKS = ("none", "file", "labels")
FRAME = "RAS"


class Recipe(ABC):
    """One way from a raw scan to a ready case; `as_dict` gives its plain options, from which it is built again."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Its name and every option, as plain lists, numbers and strings."""

    @abstractmethod
    def __call__(
        self, scan: MetaTensor, labels: MetaTensor | None = None, mask: MetaTensor | None = None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """The image in 0..1 and the labels, on one grid of the size of the recipe.

        Args:
            scan: `(1, X, Y, Z)` in its own units, its affine in RAS.
            labels: on the same grid, or None.
            mask: of what counts, on the same grid, or None.

        Raises:
            ValueError: if the recipe cannot be applied to this scan.
        """


RECIPES: Registry[Recipe] = Registry("recipe")


def build_recipe(spec: Spec) -> Recipe:
    """The recipe of a name, or of a mapping with `name` and options.

    Raises:
        ValueError: for an unknown name, option or value, naming the valid ones.
    """
    name, options = RECIPES.options(spec)
    return RECIPES.get(name)(**options)


@RECIPES.register("generic")
class Generic(Recipe):
    """Spacing and size as asked; intensities by percentiles or a window.

    Args:
        spacing: mm per voxel along each axis to resample to; None keeps the scan's own.
        size: sides in voxels.
        fit: `crop_pad` or `resample`, as for the next four see `Preprocessing`.
        pad: a value in 0..1, or `edge`.
        intensity: `percentiles` or `window`.
        percentiles: (low, high).
        window: (width, level).
    """

    def __init__(
        self,
        spacing: Sequence[float] | None = None,
        size: Sequence[int] = (128, 128, 128),
        fit: str = "crop_pad",
        pad: float | str = 0.0,
        intensity: str = "percentiles",
        percentiles: Sequence[float] = (1.0, 99.0),
        window: Sequence[float] = (290.0, 120.0),
    ) -> None:
        self.spacing = None if spacing is None else _check_spacing(spacing)
        self.preprocessing = Preprocessing(size, fit, pad, intensity, percentiles, window)

    def as_dict(self) -> dict[str, Any]:
        """Its name and every option."""
        return {
            "name": "generic",
            "spacing": None if self.spacing is None else list(self.spacing),
            **self.preprocessing.as_dict(),
        }

    def __call__(
        self, scan: MetaTensor, labels: MetaTensor | None = None, mask: MetaTensor | None = None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """RAS, the spacing, intensities to 0..1, the size; a mask is not used."""
        scan, labels = (_in_frame(volume) for volume in (scan, labels))
        scan, labels = _spaced(scan, self.spacing, "bilinear"), _spaced(labels, self.spacing, "nearest")
        image = self.preprocessing.fitted(self.preprocessing.in_unit_range(scan), is_label=False)
        return image, None if labels is None else _whole(self.preprocessing.fitted(labels, is_label=True))


@RECIPES.register("brain")
class Brain(Recipe):
    """A skull-stripped head: what the mask leaves, at 1 mm, cropped or padded around it, scaled robustly.

    Args:
        mask: where the brain is: `file`, a mask file; `labels`, wherever a label is; `none`, everywhere above the
            darkest, for scans that are stripped already.
        spacing: mm per voxel along each axis.
        size: sides in voxels, cut or padded around the centre of the brain's bounding box.
        percentiles: (low, high) of the intensities within the brain, which become 0 and 1; outside is 0.
    """

    def __init__(
        self,
        mask: str = "none",
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        size: Sequence[int] = (128, 128, 128),
        percentiles: Sequence[float] = (0.5, 99.5),
    ) -> None:
        check_choice("mask", mask, MASKS)
        self.mask = mask
        self.spacing = _check_spacing(spacing)
        self.size = check_size("size", size)
        self.percentiles = check_two_numbers("percentiles", percentiles, "low, high")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles={list(self.percentiles)} is not valid: 0 <= low < high <= 100.")

    def as_dict(self) -> dict[str, Any]:
        """Its name and every option."""
        options = {"spacing": list(self.spacing), "size": list(self.size), "percentiles": list(self.percentiles)}
        return {"name": "brain", "mask": self.mask, **options}

    def __call__(
        self, scan: MetaTensor, labels: MetaTensor | None = None, mask: MetaTensor | None = None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """RAS, 1 mm, the mask, intensities to 0..1, the size.

        Raises:
            ValueError: if the mask is missing or empty, or the brain is all of one intensity.
        """
        scan, labels, mask = (_in_frame(volume) for volume in (scan, labels, mask))
        inside = self._inside(scan, labels, mask)
        scan, labels, inside = (
            _spaced(volume, self.spacing, mode)
            for volume, mode in ((scan, "bilinear"), (labels, "nearest"), (inside, "nearest"))
        )
        brain = inside > 0
        if not brain.any():
            raise ValueError("the mask of the brain is empty.")
        low, high = (
            float(torch.quantile(_thinned(scan[brain].as_tensor()), percent / 100)) for percent in self.percentiles
        )
        if not high > low:
            raise ValueError(f"its intensities within the brain are all {low:g}.")
        image = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(scan) * brain.to(scan.dtype)
        centre = [(a + b) // 2 for a, b in zip(*generate_spatial_bounding_box(brain), strict=True)]
        image, labels = self._around(image, centre), None if labels is None else self._around(labels, centre)
        return image, None if labels is None else _whole(labels)

    def _inside(self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None) -> MetaTensor:
        if self.mask == "none":
            return MetaTensor((scan > scan.min()).float(), affine=scan.affine)
        given = mask if self.mask == "file" else labels
        if given is None:
            raise ValueError(
                f"mask={self.mask} needs a {'mask' if self.mask == 'file' else 'label map'} of every scan; "
                f"choose another of {', '.join(MASKS)}, or leave the scan out."
            )
        return MetaTensor((given > 0).float(), affine=given.affine)

    def _around(self, volume: MetaTensor, centre: Sequence[int]) -> MetaTensor:
        """`size` voxels around a voxel; what lies beyond the scan is 0."""
        before = [side // 2 for side in self.size]
        padded = SpatialPad([0, 0, 0], mode="constant")(volume)
        starts = [c - b for c, b in zip(centre, before, strict=True)]
        stops = [start + side for start, side in zip(starts, self.size, strict=True)]
        missing = [
            max(0, max(-start, stop - side)) for start, stop, side in zip(starts, stops, volume.shape[1:], strict=True)
        ]
        if any(missing):
            grown = [side + 2 * extra for side, extra in zip(volume.shape[1:], missing, strict=True)]
            padded = ResizeWithPadOrCrop(grown, mode="constant", value=0.0)(padded)
            starts = [start + extra for start, extra in zip(starts, missing, strict=True)]
            stops = [stop + extra for stop, extra in zip(stops, missing, strict=True)]
        return SpatialCrop(roi_start=starts, roi_end=stops)(padded)


def _in_frame(volume: MetaTensor | None) -> MetaTensor | None:
    return None if volume is None else Orientation(axcodes=FRAME, labels=None)(volume)


def _spaced(volume: MetaTensor | None, spacing: Sequence[float] | None, mode: str) -> MetaTensor | None:
    if volume is None or spacing is None:
        return volume
    return Spacing(pixdim=spacing, mode=mode, padding_mode="border", align_corners=False)(volume)


def _whole(labels: MetaTensor) -> MetaTensor:
    return labels.round().to(torch.int32 if labels.max() > torch.iinfo(torch.int16).max else torch.int16)


def _thinned(values: torch.Tensor, most: int = 1_000_000) -> torch.Tensor:
    """Evenly chosen values, for a quantile takes no more than 16 million."""
    return values[:: max(1, math.ceil(len(values) / most))]


def _check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
        raise ValueError(f"spacing={list(spacing)} is not valid: give three numbers above 0, in mm.")
    return steps
