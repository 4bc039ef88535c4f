"""Affine maps of voxel coordinates, and stationary velocities."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.geometry.warp import integrate, voxels_along
from regcascade.types import Flow, Homogeneous, Matrix, Size, Vector, level_size


@dataclass(frozen=True)
class Affine:
    """An affine map about the centre of the volume: p -> A (p - c) + c + b.

    Attributes:
        matrix: A, `(B, 3, 3)`.
        offset: b, `(B, 3)`, in voxels of the full grid.
        size: sides of the full grid; c = (size - 1) / 2.
        frozen: the map was computed, not predicted, so no loss judges it.
    """

    matrix: Matrix
    offset: Vector
    size: Size
    frozen: bool = False

    @classmethod
    def of_voxels(cls, homogeneous: Homogeneous, size: Size) -> "Affine":
        """The frozen map `p -> M p + t` of voxel coordinates, given as `[[M, t], [0, 1]]`."""
        matrix = homogeneous[:, :3, :3]
        centre = (torch.tensor(size, dtype=matrix.dtype, device=matrix.device) - 1) / 2
        return cls(matrix, homogeneous[:, :3, 3] + matrix @ centre - centre, size, frozen=True)

    def inverse(self) -> "Affine":
        """The inverse map: p -> A^-1 (p - c - b) + c."""
        matrix = torch.linalg.inv(self.matrix)
        offset = -torch.einsum("bij,bj->bi", matrix, self.offset)
        return Affine(matrix, offset, self.size, self.frozen)

    def detached(self) -> "Affine":
        """The same map, through which no gradient passes."""
        return replace(self, matrix=self.matrix.detach(), offset=self.offset.detach())

    def displacement(self, level: int = 0) -> Flow:
        """The map as a flow on the grid of a level, in voxels of that level.

        There b is `b / 2^level`, and the volume's centre c lies at `(S / 2^level - 1) / 2`.
        """
        weights = self.matrix - torch.eye(3, dtype=self.matrix.dtype, device=self.matrix.device)
        flow = (self.offset / 2**level)[:, :, None, None, None]
        for axis, side in enumerate(level_size(self.size, level)):
            centred = voxels_along(axis, side, weights) - (self.size[axis] / 2**level - 1) / 2
            flow = flow + weights[:, :, axis, None, None, None] * centred
        return flow

    def followed_by(self, flow: Flow, level: int = 0) -> Flow:
        """Compose this map with a flow predicted on its result: `A flow + displacement`, exact, without sampling."""
        with torch.autocast(flow.device.type, enabled=False):  # which would multiply in half precision
            return torch.einsum("bij,bjxyz->bixyz", self.matrix, flow) + self.displacement(level)


@dataclass(frozen=True)
class Velocity:
    """A stationary velocity, which `geometry.warp.integrate` turns into a flow.

    Attributes:
        field: in voxels of its own grid per unit of time.
        squarings: K of scaling and squaring.
    """

    field: Flow
    squarings: int

    def flow(self) -> Flow:
        """The flow after unit time."""
        return integrate(self.field, self.squarings)

    def inverse_flow(self) -> Flow:
        """The flow of the opposite velocity, which inverts `flow`."""
        return integrate(-self.field, self.squarings)


def between_voxels(fixed: Float[Tensor, "4 4"], moving: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The map from voxels of a fixed scan to voxels of a moving one, both aligned to one reference.

    Args:
        fixed, moving: the maps from mm of the reference to voxels of each scan.
    """
    return (moving.double() @ fixed.double().inverse()).float()


def from_reference(alignment: np.ndarray, affine: np.ndarray) -> Float[Tensor, "4 4"]:
    """Turn an alignment from mm to mm into one from mm to voxels of the scan with the given affine."""
    return torch.from_numpy(np.linalg.inv(affine) @ alignment).float()
