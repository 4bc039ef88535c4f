"""VoxelMorph as RCN and DR-Net use it, and the variants of RCN's Table 4."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.networks.base import NETS, Network
from regcascade.networks.blocks import LEAK, SameConv3d


@NETS.register("voxelmorph")
class VoxelMorph(Network):
    """Small U-Net: 300,547 parameters at full resolution alone (RCN, Section 4.1 and Table 4).

    Args:
        width_multiplier: factor on every width; 2 for "VM x2".
        convolutions: per level; 2 for "VM-double".
        passes: encoder-decoders in sequence without a warp between; 2 for "VM xx2". The second reads the first one's
            last feature map in place of the image pair.
        negative_slope: of LeakyReLU; 0.1 in RCN and DR-Net, 0.2 in VoxelMorph's published weights.
        levels, flow_multiplier, input_order, head_init: see `Network`.
    """

    scales = (0, 1, 2)
    multiple = 16

    def __init__(
        self,
        *,
        width_multiplier: int = 1,
        convolutions: int = 1,
        passes: int = 1,
        negative_slope: float = LEAK,
        levels: Iterable[int] = (0,),
        flow_multiplier: float = 1.0,
        input_order: str = "fixed_first",
        head_init: str = "near_zero",
    ) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order=input_order, head_init=head_init)
        counts = {"width_multiplier": width_multiplier, "convolutions": convolutions, "passes": passes}
        for option, value in counts.items():
            if value < 1:
                raise ValueError(f"{option}={value}: it counts things, so it is 1 or more.")
        last = 16 * width_multiplier
        self.passes = nn.ModuleList(
            _UNet(2 if k == 0 else last, width_multiplier, convolutions, negative_slope) for k in range(passes)
        )
        width_at = {0: last, 1: 2 * last, 2: 2 * last}
        self.heads.update({str(level): SameConv3d(width_at[level], 3) for level in self.levels})
        self.initialise()

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Compute the decoder's last map at full, half and quarter resolution."""
        maps = {0: pair}
        for unet in self.passes:
            maps = unet(maps[0])
        return maps


class _UNet(nn.Module):
    """Four stride-2 convolutions down; nearest upsampling and concatenation up."""

    def __init__(self, channels_in: int, multiplier: int, convolutions: int, slope: float) -> None:
        super().__init__()
        narrow, wide = 16 * multiplier, 32 * multiplier

        def block(a: int, b: int, stride: int = 1) -> nn.Sequential:
            layers: list[nn.Module] = []
            for k in range(convolutions):
                layers += [SameConv3d(b if k else a, b, stride=1 if k else stride), nn.LeakyReLU(slope)]
            return nn.Sequential(*layers)

        widths = (channels_in, narrow, wide, wide, wide)
        self.encoders = nn.ModuleList(block(a, b, 2) for a, b in pairwise(widths))
        self.bottom = block(wide, wide)
        self.up3 = block(2 * wide, wide)
        self.up2 = block(2 * wide, wide)
        self.up1 = nn.Sequential(block(wide + narrow, wide), block(wide, wide))
        self.up0 = nn.Sequential(block(wide + channels_in, narrow), block(narrow, narrow))

    def forward(self, pair: Tensor) -> dict[int, Tensor]:
        skips = [pair]
        for encoder in self.encoders:
            skips.append(encoder(skips[-1]))
        at_16 = self.bottom(skips[4])
        at_8 = self.up3(_upsampled_with(at_16, skips[3]))
        at_4 = self.up2(_upsampled_with(at_8, skips[2]))
        at_2 = self.up1(_upsampled_with(at_4, skips[1]))
        return {0: self.up0(_upsampled_with(at_2, skips[0])), 1: at_2, 2: at_4}


def _upsampled_with(small: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([F.interpolate(small, scale_factor=2, mode="nearest"), skip], dim=1)
