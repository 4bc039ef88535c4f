"""The two non-cooperative strategies that RCN and DR-Net compare with."""

from collections.abc import Sequence

import torch

from regcascade.cascades.base import CASCADES
from regcascade.cascades.strategies.cr import CR
from regcascade.networks.affine import AffineNetwork, PrecomputedAffine
from regcascade.registration import Stage
from regcascade.types import Homogeneous, Image
from regcascade.utils.registry import Spec


@CASCADES.register("all_stages")
class AllStages(CR):
    """Measure the similarity after every stage, as the original VTN does.

    Args:
        model, n, affine, stages, share_weights, integrate, detach: see `Cascade`.
    """

    def supervised(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """Select every stage."""
        return tuple(stages)


@CASCADES.register("one_by_one")
class OneByOne(CR):
    """Train stages one after another with the earlier ones fixed, as DLIR does.

    The training has n equal parts. In the k-th stage k learns (the first with an affine stage), earlier stages run
    without gradients and later ones do not run.

    Args:
        model, n, affine, stages, integrate: see `Cascade`.
        share_weights: must be false, since fixed and learning stages cannot share weights.
    """

    def __init__(
        self,
        model: Spec,
        n: int,
        affine: AffineNetwork | PrecomputedAffine | None = None,
        *,
        stages: Sequence[Spec] | None = None,
        share_weights: bool = False,
        integrate: int = 0,
    ) -> None:
        if share_weights:
            raise ValueError("cascade=one_by_one fixes the stages it has trained, so it cannot share their weights.")
        super().__init__(model, n, affine, stages=stages, integrate=integrate)
        self.learning = n - 1  # all of them run unless a training says otherwise

    def on_progress(self, done: float) -> None:
        """Move on to the stage that learns in this part of the training."""
        self.learning = max(min(int(done * self.n), self.n - 1), 0)

    def phase_done(self, done: float) -> float:
        """Give every stage a learning-rate schedule of its own."""
        return 1.0 if done >= 1 else done * self.n % 1

    def order(self, r: int, repeat: str) -> list[int]:
        """List the stages that have learnt or are learning."""
        return [k for k in super().order(r, repeat) if k <= self.learning]

    def step(self, k: int, moving: Image, fixed: Image, before: Stage | None) -> Stage:
        """Run one network; without gradients if it has been trained already."""
        with self._gradients(k == self.learning):
            return super().step(k, moving, fixed, before)

    def _affine_stage(self, moving: Image, fixed: Image, alignment: Homogeneous | None) -> Stage:
        with self._gradients(self.learning <= 0):  # with gradients its own loss terms would still move it
            return super()._affine_stage(moving, fixed, alignment)

    def _gradients(self, learns: bool) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and (learns or not self.training))
