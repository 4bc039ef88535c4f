"""VTN: one deformable sub-network of the volume tweening network (IVTN in DR-Net's paper)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from regcascade.networks.base import NETS, Network
from regcascade.networks.blocks import LEAK, SameConv3d, UpConv3d, conv
from regcascade.types import size_of

WIDTH = 16  # feature maps at 1/2
LEVELS = 6  # 1/2 to 1/64, each with twice the maps of the one before


class VTNEncoder(nn.Module):
    """Six stride-2 convolutions, from the third on each followed by another; the affine network's trunk too."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.widths = tuple(width * 2**k for k in range(LEVELS))
        self.levels = nn.ModuleList()
        for k, maps in enumerate(self.widths):
            layers = [conv(self.widths[k - 1] if k else 2, maps, stride=2)]
            if k >= 2:
                layers.append(conv(maps, maps))
            self.levels.append(nn.Sequential(*layers))

    def forward(self, pair: Tensor) -> list[Tensor]:
        """Compute the maps at 1/2, 1/4, ... 1/64; a side n becomes ceil(n / 2), so any size goes through."""
        maps = [pair]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


@NETS.register("vtn")
class VTN(Network):
    """U-shaped network with 28,252,203 parameters at full resolution alone (RCN, Section 4.1).

    From 1/64 up to 1/4 each scale enlarges a 3-channel prediction and passes it on beside the features. The head is a
    4^3 stride-2 up-convolution times 20, as in RCN's program. In a multi-scale cascade, 3^3 heads read the concatenated
    maps at 1/2 and 1/4.

    Args:
        width: feature maps at 1/2, doubled at each level below; 16 in RCN and DR-Net.
        levels, flow_multiplier, input_order, head_init: see `Network`.
    """

    scales = (0, 1, 2)
    head_gain = 20.0

    def __init__(
        self,
        *,
        width: int = WIDTH,
        levels: Iterable[int] = (0,),
        flow_multiplier: float = 1.0,
        input_order: str = "fixed_first",
        head_init: str = "near_zero",
    ) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order=input_order, head_init=head_init)
        if width < 1:
            raise ValueError(f"width={width}: it counts feature maps, so it is 1 or more.")
        self.encoder = VTNEncoder(width)
        widths = self.encoder.widths
        self.predictions, self.up_predictions, self.up_features = (nn.ModuleList() for _ in range(3))
        maps = widths[-1]
        for skip in reversed(widths[:-1]):
            self.up_features.append(UpConv3d(maps, skip))
            self.predictions.append(SameConv3d(maps, 3))
            self.up_predictions.append(UpConv3d(3, 3))
            maps = 2 * skip + 3
        self.activation = nn.LeakyReLU(LEAK)
        heads = {0: UpConv3d(maps, 3), 1: SameConv3d(maps, 3), 2: SameConv3d(2 * widths[1] + 3, 3)}
        self.heads.update({str(level): heads[level] for level in self.levels})
        self.initialise()

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Compute the concatenated maps at 1/2, which the full-resolution head reads too, and 1/4."""
        *skips, x = self.encoder(pair)
        maps = []
        decoder = zip(reversed(skips), self.up_features, self.predictions, self.up_predictions, strict=True)
        for skip, up_features, prediction, up_prediction in decoder:
            size = size_of(skip)
            x = torch.cat([skip, self.activation(up_features(x, size)), up_prediction(prediction(x), size)], dim=1)
            maps.append(x)
        return {0: maps[-1], 1: maps[-1], 2: maps[-2]}
