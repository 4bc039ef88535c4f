"""MONAI's LocalNet as a base network."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from regcascade.networks.base import NETS, Network, shrink_head

DEPTH = 3


@NETS.register("monai_localnet")
class MonaiLocalNet(Network):
    """Residual U-Net of `monai.networks.nets.LocalNet` (Hu et al., 2018), three halvings deep.

    MONAI averages the flows that it predicts at several resolutions. Here each is the flow head of its own level, 3^3
    and without bias as in MONAI. Weights are drawn as in MONAI, the heads near zero. The moving scan comes first.

    Instance normalisation replaces batch normalisation, which in evaluation would use running means over all stages and
    repeats of a cascade.

    Args:
        width: feature maps at full resolution, doubled at every halving.
        levels, flow_multiplier: see `Network`.
    """

    scales = (0, 1, 2)
    multiple = 2**DEPTH

    def __init__(self, *, width: int = 16, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0) -> None:
        from monai.networks.nets.regunet import LocalNet  # here, since MONAI takes seconds to import

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
        """Compute the decoder's map at each level."""
        return dict(enumerate(reversed(self.body(pair))))


class _Maps(nn.Module):
    """Return the decoder's maps, coarsest first; replaces MONAI's block that merges them into one flow."""

    def forward(self, maps: list[Tensor], image_size: tuple[int, ...]) -> list[Tensor]:
        return maps
