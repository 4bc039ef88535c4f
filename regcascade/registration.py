"""What a cascade returns: an affine map, the stages, the whole registration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from regcascade.geometry.affine import Affine, Velocity
from regcascade.geometry.warp import compose, resize_flow
from regcascade.types import Flow, Image, LevelFlow, size_of


@dataclass(frozen=True)
class Stage:
    """One step of a cascade.

    Attributes:
        flow: what this stage adds, on the full grid.
        totals: the whole deformation so far by level, each in voxels of its own level; 0 is always there.
        moved: the original moving image warped once with the total.
        affine: the map, if this is the affine stage.
        velocity: what `flow` is the integral of, where the cascade integrates.
    """

    flow: Flow
    totals: Mapping[int, LevelFlow]
    moved: Image
    affine: Affine | None = None
    velocity: Velocity | None = None

    @property
    def total(self) -> Flow:
        """The whole deformation so far, on the full grid."""
        return self.totals[0]

    @property
    def inverse_flow(self) -> Flow | None:
        """The inverse of `flow`: of an affine map exactly, of an integrated velocity as discretised; None of others."""
        if self.affine is not None:
            return self.affine.inverse().displacement()
        return None if self.velocity is None else self.velocity.inverse_flow()

    def detached(self) -> "Stage":
        """The same result, through which no gradient passes."""
        velocity = self.velocity and replace(self.velocity, field=self.velocity.field.detach())
        return Stage(
            flow=self.flow.detach(),
            totals={level: total.detach() for level, total in self.totals.items()},
            moved=self.moved.detach(),
            affine=self.affine and self.affine.detached(),
            velocity=velocity,
        )

    def followed_by(self, flow: Flow, level: int = 0) -> Flow:
        """The total at a level after one more flow there: `c_n = warp(c_{n-1}, a_n) + a_n` (Eq. 5)."""
        if self.affine is not None:
            return self.affine.followed_by(flow, level)
        return compose(self.totals[level], flow)


@dataclass(frozen=True)
class Registration:
    """The result of registering a batch of pairs.

    Attributes:
        moving: the moving images, from which every moved image is sampled once.
        stages: all stages in the order they ran; the affine one, where there is one, comes first.
        supervised: the stages whose moved image the similarity is to compare; the last one unless the cascade is one
            of the non-cooperative strategies.
    """

    moving: Image
    stages: tuple[Stage, ...]
    supervised: tuple[Stage, ...]

    @property
    def flow(self) -> Flow:
        """The whole deformation, in voxels of the full grid: `moved(p) = moving(p + flow(p))`."""
        return self.stages[-1].total

    @property
    def inverse_flow(self) -> Flow | None:
        """The inverse of `flow`, from those of the stages; None where one has none (see `Stage.inverse_flow`).

        `flow` is the first stage's map after the second's, and so on; this one undoes the first stage's first. It is on
        the grid of the moving images: `fixed(q + inverse_flow(q))` is the fixed image deformed onto the moving one.
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
        """The moving image deformed onto the fixed one."""
        return self.stages[-1].moved

    @property
    def affine(self) -> Affine | None:
        """The affine map the cascade began with, if any."""
        return self.stages[0].affine

    @property
    def deformable_stages(self) -> tuple[Stage, ...]:
        """The stages that are not affine."""
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
        """A total flow, enlarged from a level, less the affine displacement, which no smoothness term is to punish.

        The displacement is enlarged from that level too: next to the border an enlarged linear field is not linear.
        """
        if self.affine is None:
            return flow
        return flow - resize_flow(self.affine.displacement(level), size_of(flow), level)
