"""Results of a cascade: each stage, and the whole registration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import compose, integrate, resize_flow
from regcascade.types import Flow, Image, LevelFlow, size_of


@dataclass(frozen=True)
class Stage:
    """One step of a cascade."""

    flow: Flow  # that this stage adds, on the full grid
    totals: Mapping[int, LevelFlow]  # whole deformation so far, in voxels of each level; level 0 is always there
    moved: Image  # original moving image, warped once with the total
    affine: Affine | None = None  # of the affine stage
    velocity: Flow | None = None  # whose integral is `flow`, in voxels per unit of time, if the cascade integrates
    squarings: int = 0  # K of that integral

    @property
    def total(self) -> Flow:
        """Whole deformation so far, on the full grid."""
        return self.totals[0]

    @property
    def inverse_flow(self) -> Flow | None:
        """Inverse of `flow`: exact for an affine map, discretised for an integrated velocity, None for any other."""
        if self.affine is not None:
            return self.affine.inverse().displacement()
        return None if self.velocity is None else integrate(-self.velocity, self.squarings)

    def detached(self) -> "Stage":
        """Copy the result without gradients."""
        totals = {level: total.detach() for level, total in self.totals.items()}
        affine, velocity = self.affine, self.velocity
        if affine is not None:
            affine = replace(affine, matrix=affine.matrix.detach(), offset=affine.offset.detach())
        if velocity is not None:
            velocity = velocity.detach()
        return Stage(self.flow.detach(), totals, self.moved.detach(), affine, velocity, self.squarings)

    def followed_by(self, flow: Flow, level: int = 0) -> Flow:
        """Compute the total at a level after one more flow there: `c_n = warp(c_{n-1}, a_n) + a_n` (Eq. 5)."""
        if self.affine is not None:
            return self.affine.followed_by(flow, level)
        return compose(self.totals[level], flow)


@dataclass(frozen=True)
class Registration:
    """Result of registering a batch of pairs."""

    moving: Image  # from which every moved image is sampled once
    stages: tuple[Stage, ...]  # in the order they ran; an affine stage comes first
    supervised: tuple[Stage, ...]  # whose moved image the similarity sees: the last, or all (see `Cascade.supervised`)

    @property
    def flow(self) -> Flow:
        """Whole deformation, in voxels of the full grid: `moved(p) = moving(p + flow(p))`."""
        return self.stages[-1].total

    @property
    def inverse_flow(self) -> Flow | None:
        """Inverse of `flow` on the grid of the moving images; None if a stage has none (see `Stage.inverse_flow`).

        `fixed(q + inverse_flow(q))` is the fixed image deformed onto the moving one. `flow` applies the last stage's
        map first, so the inverse undoes the first stage's first.
        """
        total: Flow | None = None
        for stage in self.stages:
            back = stage.inverse_flow
            if back is None:
                return None
            total = back if total is None else compose(back, total)
        return total

    @property
    def moved(self) -> Image:
        """Moving image deformed onto the fixed one."""
        return self.stages[-1].moved

    @property
    def affine(self) -> Affine | None:
        """Affine map of the first stage, if any."""
        return self.stages[0].affine

    @property
    def deformable_stages(self) -> tuple[Stage, ...]:
        """Stages that are not affine."""
        return tuple(stage for stage in self.stages if stage.affine is None)

    def enlarged_total(self, level: int) -> Tensor:
        """The last stage's field of a level, enlarged to the full grid (DR-Net's Phi^k)."""
        totals = self.stages[-1].totals
        if level not in totals:
            raise ValueError(
                f"This cascade gives no field at level {level} (1/{2**level} resolution), only at {sorted(totals)}."
            )
        return resize_flow(totals[level], size_of(self.moving), level)

    def without_affine(self, flow: Flow, level: int = 0) -> Flow:
        """Find the deformable field u of a total flow `A u + affine displacement` that was enlarged from a level."""
        if self.affine is None:
            return flow
        rest = flow - resize_flow(self.affine.displacement(level), size_of(flow), level)
        return self.affine.inverse().turned(rest)
