"""Small dual-stream pyramid: encode each scan alone, then warp and correlate features from coarse to fine."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.geometry.warp import warp
from regcascade.networks.base import NETS, Network
from regcascade.networks.blocks import LEAK, UpConv3d

COARSEST = 3  # 1/8 resolution


@NETS.register("pyramid")
class Pyramid(Network):
    """Register well after minutes of training; of neither RCN nor DR-Net. 206,113 parameters with the defaults.

    One encoder sees each scan by itself, down to 1/8. From 1/8 to 1/2 the flow so far warps the moving scan's features;
    a decoder compares them with the fixed scan's, voxel by voxel, and predicts what to add to the flow. At full
    resolution a 4^3 up-convolution of the features at 1/2 adds to the enlarged flow.

    A level's flow is what it adds to the next coarser level if that is asked for too (a multi-scale cascade adds the
    levels up), otherwise the whole flow. `flow_multiplier` also scales the flows that warp features.

    Args:
        width: feature maps at 1/2; twice and four times as many at 1/4 and 1/8.
        radius: of the neighbourhood that is correlated at 1/8 and 1/4, in voxels.
        levels, flow_multiplier, head_init: see `Network`.
    """

    scales = (0, 1, 2)
    multiple = 2**COARSEST

    def __init__(
        self,
        *,
        width: int = 8,
        radius: int = 1,
        levels: Iterable[int] = (0,),
        flow_multiplier: float = 1.0,
        head_init: str = "near_zero",
    ) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier, head_init=head_init)
        if width < 1 or radius < 0:
            raise ValueError(f"width={width}, radius={radius} is not valid: give 1 or more maps, 0 or more voxels.")
        self.radius = radius
        offsets = (2 * radius + 1) ** 3
        self.encoders, self.decoders = nn.ModuleDict(), nn.ModuleDict()
        channels_in = 1
        for level in range(1, COARSEST + 1):
            channels = width * 2 ** (level - 1)
            read = 2 * channels + (offsets if level > 1 else 0) + (3 if level < COARSEST else 0)
            self.encoders[str(level)] = nn.Sequential(_block(channels_in, channels, 2), _block(channels, channels))
            self.decoders[str(level)] = nn.Sequential(_block(read, channels), _block(channels, channels))
            self.heads[str(level)] = nn.Conv3d(channels, 3, 3, padding=1)
            channels_in = channels
        self.heads["0"] = UpConv3d(width, 3)
        self.initialise()

    def flows(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Add up the flow from 1/8 to the full resolution."""
        added: dict[int, Tensor] = {}
        total: dict[int, Tensor] = {}
        x = pair.transpose(0, 1).flatten(0, 1)[:, None]  # the fixed scans, then the moving ones, as one batch
        maps = {0: x}
        for level in range(1, COARSEST + 1):
            maps[level] = x = self.encoders[str(level)](x)
        decoded = x
        for level in range(COARSEST, -1, -1):
            before = None
            if level < COARSEST:  # in voxels of this level
                before = 2 * F.interpolate(total[level + 1], scale_factor=2, mode="trilinear")
            if level > 0:
                fixed, moving = maps[level].unflatten(0, (2, -1))
                decoded = self.decoders[str(level)](self._compared(fixed, moving, before, level))
            added[level] = self.head_flow(level, decoded)
            total[level] = added[level] if before is None else before + added[level]
        return {level: added[level] if level + 1 in self.levels else total[level] for level in self.levels}

    def _compared(self, fixed: Tensor, moving: Tensor, flow: Tensor | None, level: int) -> Tensor:
        """Concatenate what a decoder reads: both scans' features (moving warped), their correlation, the flow."""
        if flow is not None:
            moving = warp(moving, flow).to(fixed.dtype)
        read = [fixed, moving]
        if level > 1:  # at 1/2 it costs as much as all the rest, and the flow is close by then
            read.append(local_correlation(fixed, moving, self.radius))
        return torch.cat(read if flow is None else [*read, flow.to(fixed.dtype)], dim=1)


def local_correlation(fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
    """Compute the cosine between a voxel's features in one map and those around it in the other, which is 0 outside.

    Returns:
        `(B, (2r + 1)^3, X, Y, Z)` for maps `(B, C, X, Y, Z)` and a radius of r voxels; the last offset runs fastest.
    """
    side = 2 * radius + 1
    x, y, z = fixed.shape[2:]
    fixed, moving = F.normalize(fixed, dim=1), F.pad(F.normalize(moving, dim=1), (radius,) * 6)
    offsets = [(i, j, k) for i in range(side) for j in range(side) for k in range(side)]
    return torch.stack([(fixed * moving[:, :, i : i + x, j : j + y, k : k + z]).sum(1) for i, j, k in offsets], dim=1)


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.InstanceNorm3d(channels_out, affine=True),
        nn.LeakyReLU(LEAK),
    )
