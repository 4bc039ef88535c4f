"""MONAI's VoxelMorph as a base network."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from regcascade.geometry.warp import integrate
from regcascade.networks.base import NETS, Network, shrink_head

WIDTHS = (16, 32, 32, 32, 32, 32)  # MONAI's default, the network of the VoxelMorph paper: down and up, pair by pair
FINAL_WIDTHS = (16, 16)


@NETS.register("monai_voxelmorph")
class MonaiVoxelMorph(Network):
    """U-Net of `monai.networks.nets.VoxelMorph` with its default widths: 244,323 parameters.

    The last convolution is the flow head, drawn near zero; other weights are drawn as in MONAI. The moving scan comes
    first. MONAI's integration is not used: at half resolution it takes a velocity four times too large (MONAI 1.6.1).

    Args:
        integration_steps: squarings that integrate the output as a stationary velocity; 0 takes it as the flow
            (MONAI's default is 7).
        levels, flow_multiplier: see `Network`; level 0 only.
    """

    multiple = 8

    def __init__(
        self, *, integration_steps: int = 0, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0
    ) -> None:
        from monai.networks.nets.voxelmorph import VoxelMorphUNet  # here, since MONAI takes seconds to import

        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order="moving_first")
        if not 0 <= integration_steps <= 16:
            raise ValueError(f"integration_steps={integration_steps}: give 0 for none, or up to 16.")
        self.integration_steps = integration_steps
        self.unet = VoxelMorphUNet(3, 2, WIDTHS[-1], WIDTHS, FINAL_WIDTHS)
        last = self.unet.net[1].get_submodule("final_conv_out")
        self.heads["0"] = last.get_submodule("conv")
        last.set_submodule("conv", nn.Identity())
        shrink_head(self.heads["0"])

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Compute the map that the last convolution reads."""
        return {0: self.unet(pair)}

    def flows(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Apply the last convolution, and integrate its output if asked."""
        return {0: integrate(super().flows(pair)[0], self.integration_steps)}
