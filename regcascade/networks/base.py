"""Base class of the networks: a pair of images in, flows at the asked levels out."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.networks.blocks import init_like_rcn
from regcascade.types import Image, LevelFlow, level_size, size_of
from regcascade.utils.precision import at_least_float32
from regcascade.utils.registry import Registry, check_choice

NETS: Registry["Network"] = Registry("network", reserved=("levels", "flow_multiplier"))


class Network(nn.Module):
    """Base class of a cascade's networks.

    A subclass builds its layers, puts a module with 3 output channels for each level into `self.heads`, ends its
    constructor with `self.initialise()`, and returns from `features` the map that each head reads. A network whose
    flows steer its own features, such as a pyramid, overrides `flows` instead.

    Attributes:
        scales: levels at which the network can predict a flow.
        multiple: pad the end of each axis, with edge values, to a multiple of this.
        head_gain: fixed factor on every flow.

    Args:
        levels: levels to predict; 0 (full resolution) is required.
        flow_multiplier: factor on every flow; 1/n in a cascade of n stages, as in RCN.
        input_order: `fixed_first` (RCN) or `moving_first` (VoxelMorph's published weights).
        head_init: `near_zero` makes the untrained network nearly the identity; `paper` draws as RCN does.
    """

    scales: ClassVar[tuple[int, ...]] = (0,)
    multiple: ClassVar[int] = 1
    head_gain: ClassVar[float] = 1.0

    def __init__(
        self,
        *,
        levels: Iterable[int] = (0,),
        flow_multiplier: float = 1.0,
        input_order: str = "fixed_first",
        head_init: str = "near_zero",
    ) -> None:
        super().__init__()
        check_choice("input_order", input_order, ["fixed_first", "moving_first"])
        check_choice("head_init", head_init, ["near_zero", "paper"])
        self.levels = tuple(sorted(levels))
        missing = [level for level in self.levels if level not in self.scales]
        if missing or 0 not in self.levels:
            raise ValueError(
                f"{type(self).__name__} predicts flows at the levels {self.scales}, and {self.levels} is asked of it: "
                "choose cascade=cr, which needs level 0 only, or a network that has the others."
            )
        self.flow_multiplier = flow_multiplier
        self.input_order = input_order
        self.head_init = head_init
        self.heads = nn.ModuleDict()

    def features(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Compute the map that the head of each of `self.levels` reads, from the padded pair `(B, 2, X, Y, Z)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `features`, or `flows`.")

    def flows(self, pair: Tensor) -> Mapping[int, Tensor]:
        """Predict the flow at each of `self.levels`, scaled, in float32, from the padded pair `(B, 2, X, Y, Z)`."""
        features = self.features(pair)
        return {level: self.head_flow(level, features[level]) for level in self.levels}

    def head_flow(self, level: int, features: Tensor) -> Tensor:
        """Apply the head of a level to a feature map; scaled, in float32."""
        with torch.autocast(features.device.type, enabled=False):  # half precision would round the flow itself
            flow: Tensor = self.heads[str(level)](at_least_float32(features))
        # Warps read a flow fastest with one plane per component.
        return flow.contiguous() * (self.flow_multiplier * self.head_gain)

    def forward(self, moving: Image, fixed: Image) -> dict[int, LevelFlow]:
        """Predict flows that deform `moving` onto `fixed`, by level, each in voxels of its own level, float32."""
        size = size_of(moving)
        pair = torch.cat([fixed, moving] if self.input_order == "fixed_first" else [moving, fixed], dim=1)
        x, y, z = (-side % self.multiple for side in size)
        if x or y or z:
            pair = F.pad(pair, (0, z, 0, y, 0, x), mode="replicate")
        sides = {level: level_size(size, level) for level in self.levels}
        flows = self.flows(pair)
        return {level: flows[level][:, :, :x, :y, :z] for level, (x, y, z) in sides.items()}

    def initialise(self) -> None:
        """Draw the weights as RCN does, those of the flow heads by `head_init` (`near_zero`: normal(0, 1e-5))."""
        self.apply(init_like_rcn)
        if self.head_init == "near_zero":
            for head in self.heads.values():
                shrink_head(head)


def shrink_head(head: nn.Module) -> None:
    """Draw the weights of a flow head from normal(0, 1e-5); biases are 0."""
    for name, parameter in head.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=1e-5)
        else:
            nn.init.zeros_(parameter)
