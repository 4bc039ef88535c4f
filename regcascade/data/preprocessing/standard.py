"""The recipe `generic` as the data sets of raw scans apply it."""

from dataclasses import dataclass, field
from typing import ClassVar

from regcascade.data.preprocessing.recipes.generic import Generic

LIVER_WINDOW = (290.0, 120.0)  # width and level in HU, the papers' CT preprocessing


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Generic):
    """The recipe `generic` without reorienting and respacing; messages name its options as a data set's.

    A checkpoint holds its options: `Preprocessing(**as_dict())` is the same.

    >>> Preprocessing(size=[64, 64, 64], intensity="window").as_dict()["window"]
    [290.0, 120.0]
    """

    PREFIX: ClassVar[str] = "data."
    REORIENTS: ClassVar[bool] = False

    fit: str = "resample"
    orientation: str = field(default="", init=False)
    relabel: None = field(default=None, init=False)
    spacing: None = field(default=None, init=False)

    as_dict = Generic.options
