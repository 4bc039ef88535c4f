"""Base class of the methods without a checkpoint: a pair of scans in, a flow out."""

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
INSTALL = "pip install -c constraints.txt -e '.[baselines]'"
_LONGEST = 200  # characters of a reason in a table

Spacing = tuple[float, float, float]


class RegistrationFailed(RuntimeError):
    """A method gave no result for a pair."""


class Pair(NamedTuple):
    """One pair of scans in 0..1, with their mm per voxel along each axis."""

    fixed: Float[Tensor, "x y z"]
    moving: Float[Tensor, "x y z"]
    fixed_spacing: Spacing
    moving_spacing: Spacing


@dataclass(frozen=True)
class Method(ABC):
    """A registration method that an evaluation uses as it does a `Cascade`.

    A subclass is a dataclass; its fields are its options.

    Attributes:
        packages: the distributions it runs; summaries list their versions.
        on_gpu: whether it can run on a GPU.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    on_gpu: ClassVar[bool] = False

    @abstractmethod
    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """Register a pair. The flow is in voxels of the fixed grid: `moved(p) = moving(p + flow(p))`."""

    def register(self, batch: Batch, r: int = 1, repeat: str = "stage") -> Registration:
        """Register the pairs of a batch one by one, as one stage; r and repeat must be the defaults.

        Raises:
            RegistrationFailed: for any error of the method.
        """
        self.about(r, repeat)
        moving = batch["moving"]
        try:
            spacings = batch["fixed_spacing"].tolist(), batch["moving_spacing"].tolist()
            pairs = zip(batch["fixed"][:, 0], moving[:, 0], *spacings, strict=True)
            flows = [self.flow(Pair(a, b, (x, y, z), (u, v, w))) for a, b, (x, y, z), (u, v, w) in pairs]
            flow = torch.stack(flows).to(moving)
        except Exception as error:  # other programs raise nearly anything
            raise RegistrationFailed(" ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]) from error
        stage = Stage(flow=flow, totals={0: flow}, moved=warp(moving, flow))
        return Registration(moving=moving, stages=(stage,), supervised=(stage,))

    def about(self, r: int = 1, repeat: str = "stage") -> dict[str, Any]:
        """Describe the method for a summary: its name, options and package versions.

        Raises:
            ValueError: if r or repeat, options of networks, are set.
        """
        name = METHODS.name_of(type(self))
        if (r, repeat) != (1, "stage"):
            raise ValueError(f"r={r}, repeat={repeat}: method={name} applies no networks; leave both out.")
        return {
            "method": {"name": name, **asdict(self)},
            "packages": {package: version(package) for package in self.packages},
        }


def needed(module: str, package: str) -> ModuleType:
    """Import a module of the extra `baselines`; raise ValueError with the command that installs it if it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"This method runs {package}, which is not installed ({error}): {INSTALL}") from error


def flow_of_millimetres(
    displacement: Float[np.ndarray, "x y z 3"], fixed_spacing: Spacing, moving_spacing: Spacing
) -> Float[Tensor, "3 x y z"]:
    """Convert displacements d in mm along the array axes into a flow in voxels.

    Both grids have one origin: voxel p of the fixed scan goes to voxel `(p s_f + d) / s_m` of the moving scan.
    """
    grid = np.moveaxis(np.indices(displacement.shape[:3]), 0, -1)
    to = (grid * np.array(fixed_spacing) + displacement.astype(np.float64)) / np.array(moving_spacing)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(to - grid, -1, 0))).float()
