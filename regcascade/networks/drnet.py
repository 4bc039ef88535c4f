"""DR-Net (Cai 2023, Section 2.2)."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.networks.base import NETS, Network
from regcascade.networks.blocks import LEAK, SameConv3d, conv
from regcascade.utils.registry import check_choice

WIDTHS = (24, 48, 96, 192, 384)  # at full resolution down to 1/16; they and what follows give 22.3 million
PYRAMID_CHANNELS = 4  # maps of the image pair at each smaller scale
REDUCTION = 16  # r of Eq. 1


@NETS.register("drnet")
class DRNet(Network):
    """U-shaped network of inception, pyramidal input and attention blocks.

    Args:
        incep: use IncepBlocks; False puts one 3^3 convolution in place of each.
        pim: use the pyramidal input module.
        scam: apply spatial and channel attention after each concatenation.
        channel_attention: `equation` adds the sigmoids of the two descriptors (Eq. 1), `text` takes the sigmoid of
            their sum (Section 2.2.5).
        levels, flow_multiplier, input_order, head_init: see `Network`.
    """

    scales = (0, 1, 2)
    multiple = 16

    def __init__(
        self,
        *,
        incep: bool = True,
        pim: bool = True,
        scam: bool = True,
        channel_attention: str = "equation",
        levels: Iterable[int] = (0,),
        flow_multiplier: float = 1.0,
        input_order: str = "fixed_first",
        head_init: str = "near_zero",
    ) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order=input_order, head_init=head_init)
        check_choice("model.channel_attention", channel_attention, ["equation", "text"])
        block = IncepBlock if incep else conv
        self.pyramid = nn.ModuleList(
            SameConv3d(PYRAMID_CHANNELS if k else 2, PYRAMID_CHANNELS, stride=2) for k in range(3 if pim else 0)
        )
        self.blocks, self.down = nn.ModuleList(), nn.ModuleList()
        for k, width in enumerate(WIDTHS):
            from_pyramid = PYRAMID_CHANNELS if pim and 1 <= k <= 3 else 0
            self.blocks.append(block(WIDTHS[k - 1] + from_pyramid if k else 2, width))
            # Two pooled maps come in where the level is halved; the last level does not pool.
            self.down.append(ConvRes(2 * width if k < 4 else width, width))
        self.paths, self.up, self.attention, self.decoder = (nn.ModuleList() for _ in range(4))
        for k, width in reversed(list(enumerate(WIDTHS[:-1]))):
            self.paths.append(nn.Sequential(*(ConvRes(width, width) for _ in range(4 - k))))
            self.up.append(nn.ConvTranspose3d(WIDTHS[k + 1], width, kernel_size=2, stride=2))
            self.attention.append(SCAM(2 * width, channel_attention) if scam else nn.Identity())
            self.decoder.append(ConvRes(2 * width, width))
        self.heads.update({str(level): SameConv3d(WIDTHS[level], 3) for level in self.levels})
        self.initialise()

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Compute the decoder's maps at full, half and quarter resolution."""
        skips: list[Tensor] = []
        x = scaled_pair = pair
        for k, (block, down) in enumerate(zip(self.blocks, self.down, strict=True)):
            if 1 <= k <= len(self.pyramid):
                scaled_pair = self.pyramid[k - 1](scaled_pair)
                x = torch.cat([x, scaled_pair], dim=1)
            x = block(x)
            skips.append(x)
            if k < 4:  # pooled in parallel (Section 2.2.3): the mean keeps the background, the maximum the texture
                x = torch.cat([F.avg_pool3d(x, 2), F.max_pool3d(x, 2)], dim=1)
            x = down(x)
        maps = {}
        decoder = zip(self.paths, self.up, self.attention, self.decoder, strict=True)
        for k, (path, up, attention, fuse) in zip((3, 2, 1, 0), decoder, strict=True):
            x = fuse(attention(torch.cat([path(skips[k]), up(x)], dim=1)))
            maps[k] = x
        return maps


class ConvRes(nn.Module):
    """Two 3^3 convolutions; a 1^3 branch adds the first one's output to the second's (Section 2.2.1)."""

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        self.first = conv(channels_in, width)
        self.second = SameConv3d(width, width)
        self.branch = SameConv3d(width, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, channels_in, ...)` to `(B, width, ...)`."""
        x = self.first(x)
        return F.leaky_relu(self.second(x) + self.branch(x), LEAK)


class IncepBlock(nn.Module):
    """Three 3^3 convolutions in sequence, outputs concatenated: receptive fields 3, 5, 7 (Section 2.2.3).

    They have a quarter, a quarter and a half of the block's width. A 1^3 convolution of the input is added.
    """

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        quarter = width // 4
        self.first = conv(channels_in, quarter)
        self.second = conv(quarter, quarter)
        self.third = conv(quarter, width - 2 * quarter)
        self.residual = SameConv3d(channels_in, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, channels_in, ...)` to `(B, width, ...)`."""
        a = self.first(x)
        b = self.second(a)
        return F.leaky_relu(torch.cat([a, b, self.third(b)], dim=1) + self.residual(x), LEAK)


class SCAM(nn.Module):
    """Channel attention and spatial attention in parallel, summed (Eqs. 1 to 3)."""

    def __init__(self, width: int, channel_attention: str = "equation") -> None:
        super().__init__()
        self.channel_attention = channel_attention
        self.mlp = nn.Sequential(
            nn.Conv3d(width, width // REDUCTION, 1, bias=False),
            nn.ReLU(),
            nn.Conv3d(width // REDUCTION, width, 1, bias=False),
        )
        # Eq. 2 prints stride 2, which contradicts the size of its output; 1 here.
        convolutions = SameConv3d(2, 2), nn.ReLU(), SameConv3d(2, 2), nn.ReLU(), SameConv3d(2, 1)
        self.spatial = nn.Sequential(*convolutions, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Compute F M_c(F) + F M_s(F), of the shape of F."""
        mean = self.mlp(x.mean((2, 3, 4), keepdim=True))
        peak = self.mlp(x.amax((2, 3, 4), keepdim=True))
        by_equation = self.channel_attention == "equation"
        channels = torch.sigmoid(mean) + torch.sigmoid(peak) if by_equation else torch.sigmoid(mean + peak)
        spatial = self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1))
        return x * (channels + spatial)
