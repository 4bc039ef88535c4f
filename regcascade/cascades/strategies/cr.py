"""Recursive cascades (RCN): jointly trained stages, similarity of the last warped image."""

from regcascade.cascades.base import CASCADES, Cascade, continued, moved_so_far
from regcascade.registration import Stage
from regcascade.types import Image


@CASCADES.register("cr")
class CR(Cascade):
    """Stage k registers what the previous stages left; `t_k = f_k + warp(t_{k-1}, f_k)` (RCN, Section 3).

    Args:
        model, n, affine, stages, share_weights, integrate, detach: see `Cascade`.
    """

    def step(self, k: int, moving: Image, fixed: Image, before: Stage | None) -> Stage:
        """Run one network at full resolution; the total flow warps the original image once."""
        predicted = self.nets[k](moved_so_far(moving, before), fixed)[0]
        return continued(moving, before, {0: predicted}, self.integrate)
