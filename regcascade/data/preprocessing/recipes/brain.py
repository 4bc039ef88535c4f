"""The recipe of the papers' brain scans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import CropForeground
from monai.transforms.intensity.array import MaskIntensity
from monai.transforms.utils import generate_spatial_bounding_box

from regcascade.data.io.images import as_meta
from regcascade.data.options import check_percentiles, check_spacing
from regcascade.data.preprocessing.recipes.base import RECIPES, Recipe
from regcascade.data.preprocessing.steps import respaced, scaled
from regcascade.utils.registry import check_choice

MASKS = ("none", "file", "labels")


@RECIPES.register("brain")
@dataclass(frozen=True, kw_only=True)
class Brain(Recipe):
    """A skull-stripped head: resampled, scaled by percentiles within the mask, 0 outside, cut or padded to `size`.

    Attributes:
        mask: what is brain: `file`, inside a mask file; `labels`, inside any label; `none`, all above the darkest
            voxel, for scans that are stripped already.
        spacing: mm per voxel along each axis.
        centre: the centre of the cut: that of the box of the `mask`, as in the papers, or of the `image`, which keeps
            scans aligned that are so already.
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
        check_choice("centre", self.centre, ("mask", "image"))
        self._set("percentiles", check_percentiles("percentiles", self.percentiles))
        self._set("spacing", check_spacing("spacing", self.spacing))

    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """Apply spacing, mask, intensities within it, and the size around the centre."""
        if self.mask == "none":
            marked = scan > scan.min()
        else:
            given, what = (mask, "mask") if self.mask == "file" else (labels, "label map")
            if given is None:
                raise ValueError(f"mask={self.mask} needs a {what} of every scan. Known: {', '.join(MASKS)}.")
            marked = given > 0
        inside = respaced(as_meta(marked.float()), self.spacing, "nearest") > 0
        if not inside.any():
            raise ValueError(f"the mask of the brain is empty (mask={self.mask}); mend it, or leave the scan out.")
        scan = respaced(scan, self.spacing, "bilinear")
        low, high = (float(value) for value in np.percentile(scan[inside].numpy(), self.percentiles))
        if not high > low:
            raise ValueError(
                f"nearly all of it within the mask (mask={self.mask}) is {low:g}; widen percentiles, or mend the mask."
            )
        image = MaskIntensity(inside)(scaled(scan, low, high))
        start, stop = np.zeros(3, dtype=int), np.array(inside.shape[1:])
        if self.centre == "mask":
            start, stop = (np.array(corner) for corner in generate_spatial_bounding_box(inside))
        start = (start + stop) // 2 - np.array(self.size) // 2
        around = CropForeground(mode="constant", value=0.0)
        image = as_meta(around.crop_pad(as_meta(image), start, start + self.size))
        if labels is not None:
            labels = respaced(labels, self.spacing, "nearest")
            labels = as_meta(around.crop_pad(labels, start, start + self.size))
        return image, labels
