"""The base class of recipes, and their registry."""

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
from nibabel.affines import apply_affine
from torch import Tensor

from regcascade.data.io.images import as_meta
from regcascade.data.io.point_tables import within
from regcascade.data.io.raw_scan import RawScan, Source
from regcascade.data.options import check_axes, check_relabel, check_size
from regcascade.utils.registry import Registry

AXES = (("L", "R"), ("P", "A"), ("I", "S"))


class Ready(NamedTuple):
    """A scan that a recipe has made ready."""

    image: MetaTensor  # `(1, X, Y, Z)` float32 in 0..1, with its affine
    labels: MetaTensor | None  # on the same grid, int16 or int32
    points: Float[Tensor, "k 3"] | None  # in voxels of the image, NaN where missing or cut off
    raw: RawScan


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """The steps from a raw scan to a ready case, as plain values: `build_recipe(as_dict())` is the same recipe.

    A recipe of your own keeps each option of its signature as an attribute of that name, and defines `apply`.

    Attributes:
        size: sides of every case in voxels.
        orientation: where the array axes lead, such as `RAS`: right, anterior, superior.
        relabel: label values to replace first: `{2: 1}` joins tumours to their liver, `{3: 0}` takes a structure out.

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
        """Give every option, as plain lists, numbers and strings."""
        values = {key: getattr(self, key) for key in inspect.signature(type(self)).parameters}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def as_dict(self) -> dict[str, Any]:
        """Give its `name` and every option, as plain lists, numbers and strings."""
        return {"name": RECIPES.name_of(type(self))} | self.options()

    def read(self, source: Source) -> Ready:
        """Read a raw scan and make it ready; raise ValueError, naming the file, for whatever is wrong with it."""
        raw = source.read()
        try:
            image, labels = self(raw.image, raw.labels, raw.mask)
            if not image.min() < image.max():  # nor if one is NaN
                raise ValueError("preprocessing leaves one value everywhere, or NaN, so that nothing can be seen.")
        except ValueError as error:
            part = f": {source.series}" if source.series else ""
            raise ValueError(f"{source.image}{part}: {error}") from error
        points = raw.points
        if points is not None:
            before, after = (np.asarray(volume.affine, dtype=float) for volume in (raw.image, image))
            voxels = apply_affine(np.linalg.inv(after), apply_affine(before, points.double().numpy()))
            points = within(torch.from_numpy(voxels).float(), image.shape[1:])
        return Ready(image, labels, points, raw)

    def __call__(
        self, scan: MetaTensor, labels: MetaTensor | None = None, mask: MetaTensor | None = None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """Make an image, float32 in 0..1, and labels, int16 (int32 where needed), on one grid of sides `size`.

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
            # MONAI works in torch where it is given torch's type, which its annotation does not allow.
            change = MapLabelValue(list(self.relabel), list(self.relabel.values()), dtype=torch.float32)  # type: ignore[arg-type]
            labels = as_meta(change(labels))
        turned = Orientation(axcodes=self.orientation, labels=AXES) if self.REORIENTS else as_meta
        beside = [None if volume is None else as_meta(turned(volume)) for volume in (labels, mask)]
        image, fitted = self.apply(as_meta(turned(scan)), *beside)
        image = as_meta(image.float().clamp(0, 1).contiguous())  # interpolating within 0..1 may round to just beyond
        if fitted is None:
            return image, None
        if not torch.equal(fitted, fitted.round()) or fitted.min() < 0:
            raise ValueError("its labels must be whole numbers from 0 up; is the label map an image?")
        integers = torch.int16 if fitted.max() <= torch.iinfo(torch.int16).max else torch.int32
        return image, as_meta(fitted.to(integers).contiguous())

    @abstractmethod
    def apply(
        self, scan: MetaTensor, labels: MetaTensor | None, mask: MetaTensor | None
    ) -> tuple[MetaTensor, MetaTensor | None]:
        """Do the work of `__call__` on oriented volumes; labels may be of any type."""

    def _set(self, option: str, value: object) -> None:
        """Keep the checked value of an option."""
        object.__setattr__(self, option, value)


RECIPES: Registry[Recipe] = Registry("recipe")
