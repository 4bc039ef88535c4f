"""MONAI's VoxelMorph as a base network."""

from collections.abc import Iterable, Mapping

from monai.networks.nets.voxelmorph import VoxelMorphUNet
from torch import Tensor, nn

from regcascade.geometry.warp import compose
from regcascade.networks.base import NETS, Network, shrink_head
from regcascade.types import Flow

WIDTHS = (16, 32, 32, 32, 32, 32)  # MONAI's default, the network of the VoxelMorph paper: down and up, pair by pair
FINAL_WIDTHS = (16, 16)
MOST_STEPS = 16


@NETS.register("monai_voxelmorph")
class MonaiVoxelMorph(Network):
    """The U-Net of `monai.networks.nets.VoxelMorph` with its default widths: 244,323 parameters.

    Its last convolution is the flow head, drawn near zero; all other weights are drawn as MONAI draws them. It sees the
    moving scan first, as there. MONAI's own integration is not used: at half resolution it integrates a velocity four
    times too large (MONAI 1.6.1), and outside the volume it takes the velocity as 0, which ours continues.

    Args:
        integration_steps: squarings by which the output is integrated as a stationary velocity; 0, unlike MONAI's
            default of 7, takes it as the flow.
        levels, flow_multiplier: see `Network`; it has level 0 only.
    """

    multiple = 8

    def __init__(
        self, *, integration_steps: int = 0, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0
    ) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order="moving_first")
        if not 0 <= integration_steps <= MOST_STEPS:
            raise ValueError(f"integration_steps={integration_steps}: give 0 for none, or up to {MOST_STEPS}.")
        self.integration_steps = integration_steps
        self.unet = VoxelMorphUNet(3, 2, WIDTHS[-1], WIDTHS, FINAL_WIDTHS)
        last = self.unet.net[1].get_submodule("final_conv_out")
        self.heads["0"] = last.get_submodule("conv")
        last.set_submodule("conv", nn.Identity())
        shrink_head(self.heads["0"])

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """What the last convolution reads."""
        return {0: self.unet(pair)}

    def flows(self, pair: Tensor) -> Mapping[int, Tensor]:
        """The last convolution's output, integrated if asked."""
        return {level: self._integrated(flow) for level, flow in super().flows(pair).items()}

    def _integrated(self, velocity: Flow) -> Flow:
        """The flow of a velocity after unit time: a small step, doubled again and again (scaling and squaring)."""
        flow = velocity / 2**self.integration_steps
        for _ in range(self.integration_steps):
            flow = compose(flow, flow)
        return flow
