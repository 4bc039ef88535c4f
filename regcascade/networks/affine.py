"""Affine network of RCN, used by DR-Net too: VTN's encoder, then two convolutions over its whole last map."""

import torch
from torch import nn

from regcascade.geometry.affine import Affine
from regcascade.networks.base import shrink_head
from regcascade.networks.blocks import init_like_rcn
from regcascade.networks.vtn import VTNEncoder
from regcascade.types import Image, Size, size_of
from regcascade.utils.precision import at_least_float32
from regcascade.utils.registry import check_choice


class PrecomputedAffine(nn.Module):
    """Stands for an affine map that another program computed and that comes with each pair of scans."""


class AffineNetwork(nn.Module):
    """Predict A = W + I and b; 14,166,288 parameters at 128^3.

    Args:
        size: sides of the volumes; the last layers span the whole last map, so the network fits one size only.
        head_init: `near_zero` starts at the identity; `paper` (RCN) draws the last layers like any other.
    """

    def __init__(self, size: Size, head_init: str = "near_zero") -> None:
        super().__init__()
        check_choice("affine.head_init", head_init, ["near_zero", "paper"])
        self.size = size
        x, y, z = (-(-side // 64) for side in size)
        self.encoder = VTNEncoder()
        self.matrix = nn.Conv3d(self.encoder.widths[-1], 9, (x, y, z), bias=False)
        self.offset = nn.Conv3d(self.encoder.widths[-1], 3, (x, y, z), bias=False)
        self.apply(init_like_rcn)
        if head_init == "near_zero":
            shrink_head(self.matrix)
            shrink_head(self.offset)

    def forward(self, moving: Image, fixed: Image) -> Affine:
        """Predict the affine map that deforms `moving` onto `fixed`: b in voxels, about the centre of the volume."""
        if size_of(moving) != self.size:
            raise ValueError(
                f"The affine network was built for volumes of {self.size} voxels and got {size_of(moving)}: "
                "use data.size of that size, or train an affine network for this one."
            )
        last = self.encoder(torch.cat([fixed, moving], dim=1))[-1]
        weights = at_least_float32(self.matrix(last).flatten(1)).view(-1, 3, 3)
        identity = weights.new_ones(3).diag()
        frozen = not any(parameter.requires_grad for parameter in self.parameters())
        offset = at_least_float32(self.offset(last).flatten(1))
        return Affine(weights + identity, offset, self.size, frozen)
