"""Affine maps of voxel coordinates."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.geometry.warp import voxels_along
from regcascade.types import Flow, Homogeneous, Matrix, Size, Vector, level_size


@dataclass(frozen=True)
class Affine:
    """An affine map about the centre of the volume: p -> A (p - c) + c + b."""

    matrix: Matrix  # A, (B, 3, 3)
    offset: Vector  # b, (B, 3), in voxels of the full grid
    size: Size  # sides of the full grid; c = (size - 1) / 2
    frozen: bool = False  # computed, not predicted, so no loss judges it

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

    def displacement(self, level: int = 0) -> Flow:
        """The map as a flow in voxels of a level, where b is `b / 2^level` and c is `(S / 2^level - 1) / 2`."""
        weights = self.matrix - self.matrix.new_ones(3).diag()
        flow = (self.offset / 2**level)[:, :, None, None, None]
        for axis, side in enumerate(level_size(self.size, level)):
            centred = voxels_along(axis, side, weights) - (self.size[axis] / 2**level - 1) / 2
            flow = flow + weights[:, :, axis, None, None, None] * centred
        return flow

    def followed_by(self, flow: Flow, level: int = 0) -> Flow:
        """Compose this map with a flow predicted on its result: `A flow + displacement`, exact, without sampling."""
        return self.turned(flow) + self.displacement(level)

    def turned(self, flow: Flow) -> Flow:
        """Multiply every vector of a flow by A."""
        with torch.autocast(flow.device.type, enabled=False):  # which would multiply in half precision
            return torch.einsum("bij,bjxyz->bixyz", self.matrix, flow)


def between_voxels(fixed: Float[Tensor, "4 4"], moving: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The map from voxels of a fixed scan to those of a moving one, given each scan's from mm of one reference."""
    return (moving.double() @ fixed.double().inverse()).float()


def from_reference(alignment: np.ndarray, affine: np.ndarray) -> Float[Tensor, "4 4"]:
    """Turn an alignment from mm to mm into one from mm to voxels of the scan with the given affine."""
    return torch.from_numpy(np.linalg.inv(affine) @ alignment).float()
