"""Layers that several networks share."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.types import size_of

LEAK = 0.1  # slope of LeakyReLU in RCN and DR-Net


class SameConv3d(nn.Conv3d):
    """3D convolution with TensorFlow's SAME padding; output sides are `ceil(n / stride)`.

    On an even side a 3^3 stride-2 convolution pads 0 and 1, where PyTorch's `padding=1` would start one voxel earlier.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, bias: bool = True):
        # With stride 1 and an odd kernel SAME is symmetric, and the convolution pads by itself, without a copy.
        symmetric = stride == 1 and kernel % 2 == 1
        super().__init__(channels_in, channels_out, kernel, stride, padding=kernel // 2 if symmetric else 0, bias=bias)
        self.symmetric = symmetric

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, X, Y, Z)` to `(B, C', ceil(X / s), ceil(Y / s), ceil(Z / s))`."""
        if not self.symmetric:
            x = F.pad(x, same_padding(size_of(x), self.kernel_size[0], self.stride[0]))
        return super().forward(x)


def same_padding(sides: Sequence[int], kernel: int, stride: int) -> list[int]:
    """Compute TensorFlow's SAME padding in `F.pad`'s order: last axis first, before and after.

    Of t = max((ceil(n / s) - 1) s + k - n, 0) zeros, t // 2 go before and the rest after.

    >>> same_padding([8, 7, 8], kernel=3, stride=2)
    [0, 1, 1, 1, 0, 1]
    """
    padding: list[int] = []
    for side in reversed(sides):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding += [total // 2, total - total // 2]
    return padding


class UpConv3d(nn.ConvTranspose3d):
    """TensorFlow's SAME up-convolution: 4^3, stride 2, no bias."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Double the sides, then crop the end to `size`; None crops nothing."""
        large = super().forward(x)
        return large if size is None else large[:, :, : size[0], : size[1], : size[2]]


def conv(channels_in: int, channels_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Build a SAME convolution followed by LeakyReLU 0.1."""
    return nn.Sequential(SameConv3d(channels_in, channels_out, kernel, stride), nn.LeakyReLU(LEAK))


def init_like_rcn(module: nn.Module) -> None:
    """Draw a convolution's weights as RCN's program does: uniform within sqrt(3 / taps of one output), biases 0."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.uniform_(module.weight, -1, 1)
        taps = module.weight[0].numel()  # (out, in, k, k, k) and (in, out, k, k, k): all but the last in TensorFlow
        module.weight.data.mul_(math.sqrt(3 / taps))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
