"""What every recipe does, and the registry of all."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation
from monai.transforms.utility.array import MapLabelValue
from torch import Tensor

from regcascade.data.io.images import as_meta
from regcascade.data.io.point_tables import within
from regcascade.data.io.raw_scan import RawScan, Source
from regcascade.data.options import check_axes, check_relabel, check_size
from regcascade.data.preprocessing.steps import as_integers, placed
from regcascade.utils.registry import Registry

AXES = (("L", "R"), ("P", "A"), ("I", "S"))


class Ready(NamedTuple):
    """A scan that a recipe has made ready.

    Attributes:
        image: `(1, X, Y, Z)` float32 in 0..1, with its affine.
        labels: on the same grid, int16 or int32, or None.
        points: `(K, 3)` in voxels of the image, NaN where missing or cut off, or None.
        raw: what it was made of.
    """

    image: MetaTensor
    labels: MetaTensor | None
    points: Float[Tensor, "k 3"] | None
    raw: RawScan


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

    PREFIX: ClassVar[str] = ""  # of the options in messages
    REORIENTS: ClassVar[bool] = True  # turn the array axes to `orientation`

    size: Sequence[int] = (128, 128, 128)
    orientation: str = "RAS"
    relabel: Mapping[int | str, int] | None = None

    def __post_init__(self) -> None:
        self._set("size", check_size(f"{self.PREFIX}size", self.size))
        if self.relabel is not None:
            self._set("relabel", check_relabel(self.relabel))
        if self.REORIENTS:
            check_axes("orientation", self.orientation)

    def options(self) -> dict[str, Any]:
        """Every option, as plain lists, numbers and strings."""
        values = {key: getattr(self, key) for key in inspect.signature(type(self)).parameters}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def as_dict(self) -> dict[str, Any]:
        """Its `name` and every option, as plain lists, numbers and strings."""
        return {"name": RECIPES.name_of(type(self))} | self.options()

    def read(self, source: Source) -> Ready:
        """Read a raw scan and make it ready.

        Raises:
            ValueError: naming the file, for whatever is wrong with it.
        """
        raw = source.read()
        try:
            image, labels = self(raw.image, raw.labels, raw.mask)
        except ValueError as error:
            raise ValueError(f"{source.where}: {error}") from error
        points = None if raw.points is None else within(self.place(raw.points, raw.image, image), image.shape[1:])
        return Ready(image, labels, points, raw)

    def place(self, points: Float[Tensor, "k 3"], before: MetaTensor, after: MetaTensor) -> Float[Tensor, "k 3"]:
        """Where landmarks in voxels of a raw scan lie in the ready one, in voxels of that."""
        return placed(points, np.asarray(before.affine, dtype=float), np.asarray(after.affine, dtype=float))

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
            labels = _relabelled(labels, self.relabel)
        turned = Orientation(axcodes=self.orientation, labels=AXES) if self.REORIENTS else as_meta
        beside = [None if volume is None else as_meta(turned(volume)) for volume in (labels, mask)]
        image, fitted = self.apply(as_meta(turned(scan)), *beside)
        if fitted is not None and (not torch.equal(fitted, fitted.round()) or fitted.min() < 0):
            raise ValueError("its labels must be whole numbers from 0 up; is the label map an image?")
        # Interpolating within 0..1 may round to just beyond.
        return as_meta(image.float().clamp(0, 1).contiguous()), None if fitted is None else as_integers(fitted)

    @abstractmethod
    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """What `__call__` gives, from volumes that are oriented already; labels may be of any type."""

    def _set(self, option: str, value: object) -> None:
        """Keep the checked value of an option."""
        object.__setattr__(self, option, value)


RECIPES: Registry[Recipe] = Registry("recipe")


def _relabelled(labels: MetaTensor, replaced: Mapping[int | str, int]) -> MetaTensor:
    # MONAI works in torch where it is given torch's type, for which its annotation has no room.
    change = MapLabelValue(list(replaced), list(replaced.values()), dtype=torch.float32)  # type: ignore[arg-type]
    return as_meta(change(labels))
