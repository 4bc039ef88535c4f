"""The recipe `generic` as the data sets of raw scans apply it."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from regcascade.data.preprocessing.recipes.generic import CROP_PAD, Generic

LIVER_WINDOW = (290.0, 120.0)  # width and level in HU, the papers' CT preprocessing


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Generic):
    """The recipe `generic`, the array axes and the spacing left as they are stored.

    It is plain values, so that a checkpoint can hold it: `Preprocessing(**as_dict())` is the same. Messages name its
    options as a data set's.

    >>> Preprocessing(size=[64, 64, 64], intensity="window").as_dict()["window"]
    [290.0, 120.0]
    """

    PREFIX: ClassVar[str] = "data."
    REORIENTS: ClassVar[bool] = False

    fit: str = "resample"
    orientation: str = field(default="", init=False)
    relabel: None = field(default=None, init=False)
    spacing: None = field(default=None, init=False)

    def as_dict(self) -> dict[str, Any]:
        """Every option, as plain lists, numbers and strings."""
        return self.options()

    def place(self, points: Float[Tensor, "k 3"], before: MetaTensor, after: MetaTensor) -> Float[Tensor, "k 3"]:
        """Where landmarks lie afterwards, from the sides of the image alone, as the size is all that changes.

        Voxel centres have whole coordinates. `resample` keeps the outer borders in place, half a voxel beyond the
        outermost centres; `crop_pad` keeps the centre of the image.
        """
        if self.transforms:
            return super().place(points, before, after)
        old, new = torch.tensor(before.shape[1:]), torch.tensor(after.shape[1:])
        if self.fit != CROP_PAD:
            return (points + 0.5) * (new / old) - 0.5
        # MONAI pads one voxel less at the start where the margin is odd; it crops from half of the side rounded down.
        return points + torch.where(new >= old, (new - old) // 2, new // 2 - old // 2)
