"""Base of the methods that have no checkpoint: a pair of scans in, a flow out."""

import importlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.geometry.warp import warp
from regcascade.registration import Registration, Stage
from regcascade.types import Batch
from regcascade.utils.registry import Registry

METHODS: Registry["Method"] = Registry("method")
_INSTALL = "pip install -c constraints.txt -e '.[baselines]'"
_LONGEST = 200  # characters of a reason

Spacing = tuple[float, float, float]


class RegistrationFailed(RuntimeError):
    """A method that gave no result for a pair."""


class Pair(NamedTuple):
    """One pair of scans.

    Attributes:
        fixed, moving: `(X, Y, Z)` float32 in 0..1.
        fixed_spacing, moving_spacing: mm per voxel along each axis.
    """

    fixed: Float[Tensor, "x y z"]
    moving: Float[Tensor, "x y z"]
    fixed_spacing: Spacing
    moving_spacing: Spacing


@dataclass(frozen=True)
class Method(ABC):
    """A registration method other than our networks; an evaluation treats it as a `Cascade`.

    A subclass is a dataclass. Its fields are its options, and its `flow` registers a pair.

    Class attributes:
        packages: the distributions it runs, whose versions go into summaries.
        on_gpu: whether it runs on a GPU too.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    on_gpu: ClassVar[bool] = False

    @abstractmethod
    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """The displacement in voxels of the fixed scan's grid: `moved(p) = moving(p + flow(p))`."""

    def register(self, batch: Batch, r: int = 1, repeat: str = "stage") -> Registration:
        """Register the pairs of a batch one by one, as one stage; r and repeat are as in `about`.

        Raises:
            RegistrationFailed: if the method gives up on a pair.
        """
        self.about(r, repeat)
        moving = batch["moving"]
        try:
            flow = torch.stack([self.flow(pair) for pair in _pairs(batch)]).to(moving)
        except Exception as error:  # other programs raise nearly anything, and the other pairs are to be done
            raise RegistrationFailed(" ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]) from error
        stage = Stage(flow=flow, totals={0: flow}, moved=warp(moving, flow))
        return Registration(moving=moving, stages=(stage,), supervised=(stage,))

    def about(self, r: int = 1, repeat: str = "stage") -> dict[str, Any]:
        """For a summary: its name and options, and the versions of its packages.

        Raises:
            ValueError: if r or repeat is set, which are of networks.
        """
        name = METHODS.name_of(type(self))
        if (r, repeat) != (1, "stage"):
            raise ValueError(f"r={r}, repeat={repeat}: method={name} applies no networks; leave both out.")
        return {
            "method": {"name": name, **asdict(self)},
            "packages": {package: version(package) for package in self.packages},
        }


def needed(module: str, package: str) -> ModuleType:
    """Import a module of the extra `baselines`.

    Raises:
        ValueError: with the command that installs it, if it is not there.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"This method runs {package}, which is not installed ({error}): {_INSTALL}") from error


def flow_of_millimetres(
    displacement: Float[np.ndarray, "x y z 3"], fixed_spacing: Spacing, moving_spacing: Spacing
) -> Float[Tensor, "3 x y z"]:
    """Convert displacements in mm along the array axes into a flow in voxels. Both grids begin at the same place.

    A voxel p of the fixed scan lies at `p s_f` and goes to `(p s_f + d) / s_m` of the moving one.
    """
    x, y, z = displacement.shape[:3]
    grid = np.stack(np.meshgrid(np.arange(x), np.arange(y), np.arange(z), indexing="ij"), axis=-1)
    to = (grid * np.array(fixed_spacing) + displacement.astype(np.float64)) / np.array(moving_spacing)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(to - grid, -1, 0))).float()


def _pairs(batch: Batch) -> list[Pair]:
    def spacings(of: Tensor) -> list[Spacing]:
        return [(float(x), float(y), float(z)) for x, y, z in of.tolist()]

    fixed, moving = batch["fixed"][:, 0], batch["moving"][:, 0]
    sides = zip(fixed, moving, spacings(batch["fixed_spacing"]), spacings(batch["moving_spacing"]), strict=True)
    return [Pair(*one) for one in sides]
