"""Recipes: what `regcascade prepare` does to a raw scan, step by step, with MONAI's transforms.

Each takes the scan to RAS axis order first, and gives images in 0..1 and labels on one grid, whose affine still tells
where every voxel lies in the world of the raw scan.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import CropForeground
from monai.transforms.intensity.array import MaskIntensity, ScaleIntensityRange
from monai.transforms.spatial.array import Orientation, Spacing
from monai.transforms.utility.array import MapLabelValue
from monai.transforms.utils import generate_spatial_bounding_box
from nibabel.affines import voxel_sizes

from regcascade.data.liver import MARGIN, Box, crop_to_box, find_liver, label_box, pad_box
from regcascade.data.options import check_axes, check_count, check_size, check_spacing
from regcascade.data.preprocessing import Preprocessing, as_integers
from regcascade.registry import Registry, Spec, check_choice

AXES = (("L", "R"), ("P", "A"), ("I", "S"))
CROPS = ("threshold", "labels", "none")
MASKS = ("none", "file", "labels")
CENTRES = ("mask", "image")
ROUNDING = 1e-5  # of the directions in headers


class Steps(Preprocessing):
    """The intensities and the size of a recipe; messages name its options as a recipe's."""

    PREFIX: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """One way from a raw scan to a ready case. It is plain values: `build_recipe(as_dict())` is the same recipe.

    A recipe of one's own keeps each option of its signature as an attribute of that name, and defines `apply`.

    Attributes:
        size: sides of every case in voxels.
        orientation: where the array axes lead, such as `RAS`: to the right, to the front (anterior), up (superior).
        relabel: label values to replace, before anything else looks at them: `{2: 1}` joins tumours to their liver,
            `{3: 0}` takes a structure out.

    Raises:
        ValueError: for a value that is not valid, naming the option.
    """

    size: Sequence[int] = (128, 128, 128)
    orientation: str = "RAS"
    relabel: Mapping[int | str, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size("size", self.size))
        if self.relabel is not None:
            object.__setattr__(self, "relabel", _check_relabel(self.relabel))
        check_axes("orientation", self.orientation)

    def as_dict(self) -> dict[str, Any]:
        """Its `name` and every option, as plain lists, numbers and strings."""
        name = next(name for name in RECIPES.names() if RECIPES.get(name) is type(self))
        options = {key: getattr(self, key) for key in inspect.signature(type(self)).parameters}
        return {"name": name} | {
            key: list(value) if isinstance(value, tuple) else value for key, value in options.items()
        }

    def __call__(
        self, scan: MetaTensor, labels: MetaTensor | None = None, mask: MetaTensor | None = None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """The image, float32 in 0..1, and the labels, int16 (int32 where needed), on one grid of sides `size`.

        Args:
            scan: `(1, X, Y, Z)` in its own units, its affine in RAS.
            labels: on the same grid, whole numbers from 0 up, or None.
            mask: of what counts, above 0 on the same grid, or None.

        Raises:
            ValueError: if the recipe cannot be applied to this scan.
        """
        for what, volume in (("label map", labels), ("mask", mask)):
            if volume is not None and volume.shape != scan.shape:
                raise ValueError(
                    f"its {what} has the shape {tuple(volume.shape[1:])}, but the image has {tuple(scan.shape[1:])}."
                )
        if labels is not None and self.relabel:
            labels = MapLabelValue(list(self.relabel), list(self.relabel.values()), dtype=torch.float32)(labels)
        turned = Orientation(axcodes=self.orientation, labels=AXES)
        beside = [None if volume is None else turned(volume) for volume in (labels, mask)]
        image, fitted = self.apply(turned(scan), *beside)
        if fitted is not None and (not torch.equal(fitted, fitted.round()) or fitted.min() < 0):
            raise ValueError("its labels must be whole numbers from 0 up; is the label map an image?")
        # Interpolating within 0..1 may round to just beyond.
        return image.float().clamp(0, 1).contiguous(), None if fitted is None else as_integers(fitted)

    @abstractmethod
    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """What `__call__` gives, from volumes that are oriented already; labels may be of any type."""


RECIPES: Registry[Recipe] = Registry("recipe")


def build_recipe(spec: Spec) -> Recipe:
    """The recipe of a name, or of a mapping with `name` and options.

    Raises:
        ValueError: for an unknown name, option or value, naming the valid ones.
    """
    name, options = RECIPES.options(spec)
    return RECIPES.get(name)(**options)


@RECIPES.register("generic")
@dataclass(frozen=True, kw_only=True)
class Generic(Recipe):
    """Spacing, intensities by percentiles or a window, 0 outside a mask if there is one, and the size, in this order.

    Attributes:
        spacing: mm per voxel along each axis to resample to; None keeps the scan's own.
        fit: `crop_pad` or `resample`; with the latter, which stretches the whole scan to `size`, the spacing is only
            what it passes through. This and what follows are `Preprocessing`'s.
        pad: a value in 0..1, or `edge`.
        intensity: `percentiles` or `window`.
        percentiles: (low, high).
        window: (width, level).
    """

    spacing: Sequence[float | int] | None = None
    fit: str = "crop_pad"
    pad: float | str = 0.0
    intensity: str = "percentiles"
    percentiles: Sequence[float | int] = (1.0, 99.0)
    window: Sequence[float | int] = (290.0, 120.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = self._steps()
        object.__setattr__(self, "percentiles", steps.percentiles)
        object.__setattr__(self, "window", steps.window)
        if self.spacing is not None:
            object.__setattr__(self, "spacing", check_spacing("spacing", self.spacing))

    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """The spacing, the intensities, the size."""
        steps = self._steps()
        image = steps.in_unit_range(_spaced(scan, self.spacing, "bilinear"))
        if mask is not None:
            image = MaskIntensity(_spaced((mask > 0).float(), self.spacing, "nearest"))(image)
        image = steps.fitted(image, is_label=False)
        if labels is not None:
            labels = steps.fitted(_spaced(labels, self.spacing, "nearest"), is_label=True)
        return image, labels

    def _steps(self) -> Steps:
        return Steps(self.size, self.fit, self.pad, self.intensity, self.percentiles, self.window)


@RECIPES.register("liver")
@dataclass(frozen=True, kw_only=True)
class Liver(Recipe):
    """The papers' liver scans: CT cropped around the liver, resampled to `size` (linear), a window to 0..1.

    Attributes:
        crop: where the liver is: `threshold` searches it in the image (`regcascade.data.liver`), `labels` takes the box
            of the label map, `none` takes the whole scan, which is cropped already.
        crop_labels: the label values to crop around, for `labels`; None for all above 0.
        margin: what the box gains on every side, as a fraction of its length.
        window: (width, level) in Hounsfield units.
    """

    crop: str = "threshold"
    crop_labels: Sequence[int] | None = None
    margin: float = MARGIN
    window: Sequence[float | int] = (290.0, 120.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("crop", self.crop, CROPS)
        object.__setattr__(self, "window", self._steps().window)
        object.__setattr__(self, "margin", _check_number("margin", self.margin))
        if self.crop_labels is not None:
            if self.crop != "labels":
                raise ValueError(f"crop_labels={list(self.crop_labels)} needs crop=labels; crop={self.crop}.")
            object.__setattr__(self, "crop_labels", _check_values("crop_labels", self.crop_labels))

    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """The crop, the size, the window."""
        if self.crop != "none":
            box = self._box(scan, labels)
            scan, labels = crop_to_box(scan, box), None if labels is None else crop_to_box(labels, box)
        steps = self._steps()
        image = steps.in_unit_range(steps.fitted(scan, is_label=False))
        return image, None if labels is None else steps.fitted(labels, is_label=True)

    def _box(self, scan: MetaTensor, labels: MetaTensor | None) -> Box:
        """Around the liver, with the margin."""
        if self.crop == "threshold":
            return pad_box(find_liver(scan), scan, self.margin)
        if labels is None:
            raise ValueError("crop=labels needs a label map of every scan; choose crop=threshold.")
        return pad_box(label_box(labels, self.crop_labels), scan, self.margin)

    def _steps(self) -> Steps:
        return Steps(self.size, "resample", 0.0, "window", (1.0, 99.0), self.window)


@RECIPES.register("brain")
@dataclass(frozen=True, kw_only=True)
class Brain(Recipe):
    """A skull-stripped head: resampled to 1 mm, scaled robustly within the mask, 0 outside, cut or padded to `size`.

    Attributes:
        mask: where the brain is: `file`, a mask file; `labels`, wherever a label is; `none`, everywhere above the
            darkest, for scans that are stripped already.
        spacing: mm per voxel along each axis.
        centre: what is cut or padded around: the box of the `mask`, as the papers crop around the brain, or the
            `image`, which leaves scans that are aligned already where they are.
        percentiles: (low, high) of the intensities within the mask, which become 0 and 1; (0, 100) is nearly a division
            by the maximum.
    """

    mask: str = "none"
    centre: str = "mask"
    spacing: Sequence[float | int] = (1.0, 1.0, 1.0)
    percentiles: Sequence[float | int] = (0.5, 99.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mask", self.mask, MASKS)
        check_choice("centre", self.centre, CENTRES)
        steps = Steps(self.size, "crop_pad", 0.0, "percentiles", self.percentiles, (1.0, 0.0))
        object.__setattr__(self, "percentiles", steps.percentiles)
        object.__setattr__(self, "spacing", check_spacing("spacing", self.spacing))

    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """The spacing, the mask, the intensities within it, the size around the centre."""
        inside = _spaced(self._inside(scan, labels, mask), self.spacing, "nearest") > 0
        if not inside.any():
            raise ValueError(f"the mask of the brain is empty (mask={self.mask}); mend it, or leave the scan out.")
        scan = _spaced(scan, self.spacing, "bilinear")
        low, high = (float(value) for value in np.percentile(scan[inside].numpy(), self.percentiles))
        if not high > low:
            raise ValueError(
                f"nearly all of it within the mask (mask={self.mask}) is {low:g}; widen percentiles, or mend the mask."
            )
        image = ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)(scan)
        image = MaskIntensity(inside)(image)
        start, stop = np.zeros(3, dtype=int), np.array(inside.shape[1:])
        if self.centre == "mask":
            start, stop = (np.array(corner) for corner in generate_spatial_bounding_box(inside))
        start = (start + stop) // 2 - np.array(self.size) // 2
        around = CropForeground(mode="constant", value=0.0)
        image = around.crop_pad(image, start, start + self.size)
        if labels is not None:
            labels = around.crop_pad(_spaced(labels, self.spacing, "nearest"), start, start + self.size)
        return image, labels

    def _inside(self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None) -> MetaTensor:
        """1 where the brain is, on the grid of the scan."""
        if self.mask == "none":
            return (scan > scan.min()).float()
        given, what = (mask, "mask") if self.mask == "file" else (labels, "label map")
        if given is None:
            raise ValueError(f"mask={self.mask} needs a {what} of every scan. Known: {', '.join(MASKS)}.")
        return (given > 0).float()


def _spaced(volume: MetaTensor, spacing: Sequence[float | int] | None, mode: str) -> MetaTensor:
    """Resampled to a spacing, the centre of the first voxel where it was; beyond the last, the border goes on."""
    if spacing is None:
        return volume
    # MONAI begins where the scan does only if the axes are at right angles to 1e-8, and headers are rounded.
    volume = MetaTensor(volume.as_tensor(), affine=torch.from_numpy(_squared(np.asarray(volume.affine, dtype=float))))
    # float32 places a sample to 0.0001 voxels, in half the memory and a quarter of the time of MONAI's float64.
    return Spacing(pixdim=spacing, mode=mode, padding_mode="border", align_corners=False, dtype=torch.float32)(volume)


def _squared(affine: np.ndarray) -> np.ndarray:
    """An affine with its axes at right angles, if it lacks that by no more than headers are rounded."""
    steps = voxel_sizes(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / steps)
    squared = affine.copy()
    squared[:3, :3] = left @ right * steps
    return squared if np.abs(squared[:3, :3] - affine[:3, :3]).max() <= ROUNDING * steps.max() else affine


def _check_number(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ValueError(f"{option}={value} is not valid: give a number, 0 or more.")
    return float(value)


def _check_values(option: str, values: object) -> tuple[int, ...]:
    """Label values above 0."""
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
    if not listed:
        raise ValueError(f"{option}={values} is not valid: give a list of label values, such as [1,2].")
    return tuple(check_count(option, value, 1) for value in listed)


def _check_relabel(given: object) -> dict[int, int]:
    """What each label value becomes; keys may be the texts that JSON makes of them."""
    try:
        pairs = {int(old): check_count("relabel", new, 0) for old, new in given.items()}  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"relabel={given} is not valid: give label values and what each becomes: {{2: 1}}.") from error
    return {old: new for old, new in sorted(pairs.items()) if old != new}
