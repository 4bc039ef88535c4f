"""MONAI's LocalNet as a base network."""

from collections.abc import Iterable, Mapping

from monai.networks.nets.regunet import LocalNet
from torch import Tensor, nn

from regcascade.networks.base import NETS, Network, shrink_head

DEPTH = 3


@NETS.register("monai_localnet")
class MonaiLocalNet(Network):
    """The residual U-Net of `monai.networks.nets.LocalNet` (Hu et al., 2018), three halvings deep.

    The networks of that paper and of MONAI add up, or average, flows that they predict at several resolutions. Here
    each of them is a flow head of its own level, 3^3 and without bias as in MONAI, so that one cascade can use the full
    resolution and another all three. Weights are drawn as MONAI draws them, the heads near zero. It sees the moving
    scan first.

    Batch normalisation is instance normalisation here, which in training on batches of one pair is the same, and which
    in evaluation does not bring running means of all stages and repeats of a cascade instead.

    Args:
        width: feature maps at full resolution, doubled at every halving.
        levels, flow_multiplier: see `Network`.
    """

    scales = (0, 1, 2)
    multiple = 2**DEPTH

    def __init__(self, *, width: int = 16, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order="moving_first")
        if width < 2:
            raise ValueError(f"width={width} is not valid: 2 or more feature maps.")
        self.body = LocalNet(3, 2, width, extract_levels=(0, DEPTH))  # type: ignore[arg-type]  # MONAI means any tuple
        self.body.output_block = _Maps()
        for name, module in list(self.body.named_modules()):
            if isinstance(module, nn.BatchNorm3d):
                self.body.set_submodule(name, nn.InstanceNorm3d(module.num_features, affine=True))
        for level in self.levels:
            head = nn.Conv3d(width * 2**level, 3, 3, padding=1, bias=False)
            shrink_head(head)
            self.heads[str(level)] = head

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """The decoder's map at each level."""
        return dict(enumerate(reversed(self.body(pair))))


class _Maps(nn.Module):
    """In place of MONAI's block that makes one flow of the decoder's maps: hands them on, coarsest first."""

    def forward(self, maps: list[Tensor], image_size: tuple[int, ...]) -> list[Tensor]:
        return maps
