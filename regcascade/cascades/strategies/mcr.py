"""The multi-scale cooperative cascade (DR-Net, Section 2.3)."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.cascades.base import CASCADES, Cascade, continued, moved_so_far
from regcascade.geometry.warp import compose
from regcascade.networks.affine import AffineNetwork, PrecomputedAffine
from regcascade.registration import Stage
from regcascade.types import Flow, Image, size_of
from regcascade.utils.registry import Spec, check_choice


@CASCADES.register("mcr")
class MCR(Cascade):
    """Flows cooperate across scales within a sub-network (Eq. 4) and across sub-networks at each scale (Eq. 5).

    Args:
        model, n, affine, stages, share_weights: see `Cascade`.
        detach: see `Cascade`; at half and quarter resolution the similarity sees the last stage only.
        integrate: see `Cascade`; fields within a sub-network add up as velocities, and each scale is integrated before
            Eq. 5.
        accumulate: operator A of Eq. 4: `add` the enlarged coarser field, or `compose` with it.
    """

    levels = (0, 1, 2)

    def __init__(
        self,
        model: Spec,
        n: int,
        affine: AffineNetwork | PrecomputedAffine | None = None,
        *,
        stages: Sequence[Spec] | None = None,
        share_weights: bool = False,
        integrate: int = 0,
        detach: bool = False,
        accumulate: str = "add",
    ) -> None:
        super().__init__(
            model, n, affine, stages=stages, share_weights=share_weights, integrate=integrate, detach=detach
        )
        check_choice("cascade.accumulate", accumulate, ["add", "compose"])
        if integrate and accumulate == "compose":
            raise ValueError("cascade.accumulate=compose needs flows, cascade.integrate has velocities: leave one out.")
        self.accumulate = accumulate
        self.enlarge = nn.ModuleList(
            nn.ModuleList(LearnedEnlargement() for _ in self.levels[:-1]) for _ in range(self.sets_of_weights)
        )

    def step(self, k: int, moving: Image, fixed: Image, before: Stage | None) -> Stage:
        """Accumulate the network's flows from coarse to fine, then continue the totals at each scale."""
        predicted = self.nets[k](moved_so_far(moving, before), fixed)
        coarsest = self.levels[-1]
        fields = {coarsest: predicted[coarsest]}
        for level in reversed(self.levels[:-1]):
            larger = cast(nn.ModuleList, self.enlarge[k])[level](fields[level + 1], size_of(predicted[level]))
            own = predicted[level]
            fields[level] = own + larger if self.accumulate == "add" else compose(larger, own)
        return continued(moving, before, fields, self.integrate)


class LearnedEnlargement(nn.Module):
    """Learned 4^3 stride-2 up-convolution of a flow continued by edge values; starts as trilinear, times 2."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.75, 0.75, 0.25])  # half-pixel linear interpolation by 2
        kernel = 2 * torch.einsum("i,j,k->ijk", line, line, line)
        self.weight = nn.Parameter(torch.einsum("ab,ijk->abijk", torch.eye(3), kernel))

    def forward(self, flow: Flow, size: Sequence[int]) -> Tensor:
        """Enlarge a flow to the next finer level, of `size`, in that level's voxels, float32."""
        with torch.autocast(flow.device.type, enabled=False):
            padded = F.pad(flow, (1,) * 6, mode="replicate")
            large = F.conv_transpose3d(padded, self.weight, stride=2, padding=1)
            x, y, z = size
            return large[:, :, 2 : 2 + x, 2 : 2 + y, 2 : 2 + z]
