"""A scan ready for the networks, and a set of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One preprocessed scan.

    Attributes:
        name: unique within its data set; the names in a pair list.
        image: `(1, X, Y, Z)` float32 in 0..1, axes in the file's array order.
        spacing: mm per voxel along each array axis, of this image (after any resampling).
        labels: `(1, X, Y, Z)` integers, 0 background, or None where the scan has none.
        points: `(K, 3)` landmarks in voxels of this image, NaN where one is missing, or None.
        alignment: `(4, 4)`, from mm of the scan that all were aligned to, to voxels of this image, or None.
    """

    name: str
    image: Float[Tensor, "1 x y z"]
    spacing: tuple[float, float, float]
    labels: Int[Tensor, "1 x y z"] | None = None
    points: Float[Tensor, "k 3"] | None = None
    alignment: Float[Tensor, "4 4"] | None = None


class CaseSet(ABC):
    """An indexed collection of cases of one size. Reading a case is lazy; names and labels are known at once.

    It is no `Sequence[Case]`: a type checker at run time would read a case to see whether it is one.

    Attributes:
        names: the name of each case, in order.
        label_names: what each label value means, background left out; empty where nothing is labelled.
    """

    names: list[str]
    label_names: dict[int, str]

    @abstractmethod
    def __getitem__(self, index: int) -> Case:
        """Read the case at an index."""

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))

    def labelled(self, index: int) -> bool:
        """Whether a case has labels, told without reading it. All or none, unless a set knows better."""
        return bool(self.label_names)

    def labelled_names(self) -> list[str]:
        """List the cases with labels."""
        return [name for index, name in enumerate(self.names) if self.labelled(index)]

    def landmarked(self, index: int) -> bool:
        """Whether a case has points. It is read to see, unless a set knows better."""
        return self[index].points is not None

    def aligned(self, index: int) -> bool:
        """Whether a case has an alignment; none has, unless a set knows better."""
        return False

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a scan becomes a case, as plain values that a checkpoint keeps. By default the size of the first case.

        Always the `size`; where known also the options of the recipe, and the usual `orientation` (such as RAS) and
        `spacing` (mm) of the raw scans.
        """
        return {"size": list(self[0].image.shape[1:])}

    def set_of(self, index: int) -> str:
        """Find the name of the set that a case is from, where several are mixed; nothing elsewhere."""
        return ""
