"""Any scan: spacing, intensities, size."""

from collections.abc import Sequence
from dataclasses import dataclass

from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import MaskIntensity

from regcascade.data.io.images import as_meta
from regcascade.data.options import check_spacing
from regcascade.data.preprocessing.recipes.base import RECIPES, Recipe, Steps
from regcascade.data.preprocessing.standard import respaced


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
        image = steps.in_unit_range(respaced(scan, self.spacing, "bilinear"))
        if mask is not None:
            inside = respaced(as_meta((mask > 0).float()), self.spacing, "nearest")
            image = as_meta(MaskIntensity(inside)(image))
        image = steps.fitted(image, is_label=False)
        if labels is not None:
            labels = steps.fitted(respaced(labels, self.spacing, "nearest"), is_label=True)
        return image, labels

    def _steps(self) -> Steps:
        return Steps(self.size, self.fit, self.pad, self.intensity, self.percentiles, self.window)
