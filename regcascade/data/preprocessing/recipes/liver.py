"""The recipe of the papers' liver scans."""

from collections.abc import Sequence
from dataclasses import dataclass

from monai.data.meta_tensor import MetaTensor

from regcascade.data.options import check_number, check_values, check_window
from regcascade.data.preprocessing.liver_box import MARGIN, crop_to_box, find_liver, label_box, pad_box
from regcascade.data.preprocessing.recipes.base import RECIPES, Recipe
from regcascade.data.preprocessing.steps import resized, windowed
from regcascade.utils.registry import check_choice


@RECIPES.register("liver")
@dataclass(frozen=True, kw_only=True)
class Liver(Recipe):
    """CT cropped around the liver, resampled to `size` (linear), a window mapped to 0..1.

    Attributes:
        crop: where the liver is: `threshold` searches it in the image (`liver_box.py`), `labels` takes the box
            of the label map, `none` takes the whole scan, which is cropped already.
        crop_labels: the label values to crop around, for `labels`; None for all above 0.
        margin: added to the box on every side, as a fraction of its length.
        window: (width, level) in Hounsfield units.
    """

    crop: str = "threshold"
    crop_labels: Sequence[int] | None = None
    margin: float = MARGIN
    window: Sequence[float | int] = (290.0, 120.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("crop", self.crop, ("threshold", "labels", "none"))
        self._set("window", check_window("window", self.window))
        self._set("margin", check_number("margin", self.margin))
        if self.crop_labels is not None:
            if self.crop != "labels":
                raise ValueError(f"crop_labels={list(self.crop_labels)} needs crop=labels; crop={self.crop}.")
            self._set("crop_labels", check_values("crop_labels", self.crop_labels))

    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """Apply crop, size and window."""
        if self.crop != "none":
            if self.crop == "threshold":
                box = find_liver(scan)
            elif labels is not None:
                box = label_box(labels, self.crop_labels)
            else:
                raise ValueError("crop=labels needs a label map of every scan; choose crop=threshold.")
            box = pad_box(box, scan, self.margin)
            scan, labels = crop_to_box(scan, box), None if labels is None else crop_to_box(labels, box)
        image = windowed(resized(scan, self.size, is_label=False), self.window)
        return image, None if labels is None else resized(labels, self.size, is_label=True)
