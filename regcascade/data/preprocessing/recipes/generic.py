"""The recipe for any scan: spacing, intensities, size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import MaskIntensity
from monai.transforms.transform import Randomizable

from regcascade.data.io.images import as_meta
from regcascade.data.monai_transforms import IMAGE, LABEL, apply_monai, build_monai
from regcascade.data.options import check_percentiles, check_spacing, check_window
from regcascade.data.preprocessing.recipes.base import RECIPES, Recipe
from regcascade.data.preprocessing.steps import between_percentiles, cropped_or_padded, resized, respaced, windowed
from regcascade.utils.registry import Spec, check_choice


@RECIPES.register("generic")
@dataclass(frozen=True, kw_only=True)
class Generic(Recipe):
    """Spacing, intensities by percentiles or a window, 0 outside a mask if there is one, then the size.

    Intensities come before the size, so that padding does not move a percentile. Images are resampled linearly, labels
    by nearest.

    Attributes:
        spacing: mm per voxel along each axis to resample to; None keeps the scan's own.
        fit: `crop_pad` cuts or pads around the centre; `resample` stretches the field of view to `size`.
        pad: what `crop_pad` adds: a value in 0..1 (labels get background), or `edge` to repeat the outermost voxels.
        intensity: `percentiles` maps those of each scan to 0 and 1, `window` a fixed range; both clip.
        percentiles: (low, high), in percent.
        window: (width, level) in the scan's units, such as Hounsfield.
        transforms: MONAI's dictionary transforms without random ones, applied last, see `build_monai`; the image is
            clipped to 0..1 after them.
    """

    spacing: Sequence[float | int] | None = None
    fit: str = "crop_pad"
    pad: float | str = 0.0
    intensity: str = "percentiles"
    percentiles: Sequence[float | int] = (1.0, 99.0)
    window: Sequence[float | int] = (290.0, 120.0)
    transforms: Sequence[Spec] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(f"{self.PREFIX}fit", self.fit, ("crop_pad", "resample"))
        check_choice(f"{self.PREFIX}intensity", self.intensity, ("percentiles", "window"))
        self._set("percentiles", check_percentiles(f"{self.PREFIX}percentiles", self.percentiles))
        self._set("window", check_window(f"{self.PREFIX}window", self.window))
        if self.pad != "edge" and (isinstance(self.pad, str | bool) or not 0 <= self.pad <= 1):
            raise ValueError(f"{self.PREFIX}pad={self.pad} is not valid: give a value in 0..1, or edge.")
        if self.spacing is not None:
            self._set("spacing", check_spacing("spacing", self.spacing))
        for transform in self._chain.transforms:
            if isinstance(transform, Randomizable):
                raise ValueError(
                    f"{self.PREFIX}transforms: {type(transform).__name__} is random, and a scan is read in one way "
                    "only: data.augmentation={name: monai, transforms: [...]} takes it."
                )

    @cached_property
    def _chain(self) -> Compose:
        return build_monai(self.transforms, f"{self.PREFIX}transforms")

    def options(self) -> dict[str, Any]:
        """Give every option, as plain lists, numbers and strings; `transforms` only where there are any."""
        return {key: value for key, value in super().options().items() if key != "transforms" or value}

    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """Apply spacing, intensities, mask, size and transforms."""
        image = respaced(scan, self.spacing, "bilinear")
        if self.intensity == "window":
            image = windowed(image, self.window, f"{self.PREFIX}window")
        else:
            image = between_percentiles(image, self.percentiles, f"{self.PREFIX}percentiles")
        if mask is not None:
            inside = respaced(as_meta((mask > 0).float()), self.spacing, "nearest")
            image = as_meta(MaskIntensity(inside)(image))
        fitted = partial(cropped_or_padded, pad=self.pad) if self.fit == "crop_pad" else resized
        if labels is not None:
            labels = fitted(respaced(labels, self.spacing, "nearest"), self.size, is_label=True)
        image = fitted(image, self.size, is_label=False)
        if self.transforms:
            beside = {} if labels is None else {LABEL: labels}
            changed = apply_monai(self._chain, {IMAGE: image, **beside}, f"{self.PREFIX}transforms")
            image, labels = as_meta(changed[IMAGE]), as_meta(changed[LABEL]) if beside else None
        return image, labels
