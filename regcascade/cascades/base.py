"""Base class of the cascade strategies: an optional affine stage, then networks in turn, give a Registration."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import integrate, warp
from regcascade.networks import build_net
from regcascade.networks.affine import AffineNetwork, PrecomputedAffine
from regcascade.registration import Registration, Stage
from regcascade.types import Batch, Homogeneous, Image, LevelFlow, Size, size_of
from regcascade.utils.registry import Registry, Spec, check_choice

CASCADES: Registry["Cascade"] = Registry("cascade", reserved=("model", "n", "affine"))
SMALLEST_SIDE = 16
MOST_RUNS = 1000  # of networks in one registration; more in a file or an option is a slip
RECOMPUTE = ("none", "stage")


class Cascade(nn.Module, ABC):
    """Networks in turn, each registering what the previous ones left.

    A strategy is a subclass whose `step` continues the registration so far by one more network.

    Attributes:
        levels: levels at which every network predicts a flow.
        recompute: `stage` saves memory in training: it keeps only what a stage returns, and runs its network again for
            its gradient; `none` keeps everything.

    Args:
        model: base network of every stage: a name, or a mapping with `name` and options.
        n: number of deformable stages; 0 only with an affine stage.
        affine: affine stage that comes first, if any.
        stages: a network for each of the `n` stages, instead of `model`.
        share_weights: use one set of weights for all stages.
        integrate: K squarings that integrate what a stage predicts as a stationary velocity; 0 takes it as the flow.
        detach: pass no gradient from a stage to the previous ones; the similarity then sees every stage.
    """

    levels: ClassVar[tuple[int, ...]] = (0,)
    recompute: str = "none"
    description: Mapping[str, Any] | None = None  # of the checkpoint it was loaded from

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
    ) -> None:
        super().__init__()
        if isinstance(stages, str):
            raise ValueError(f"cascade.stages={stages}: give a list, such as [{stages}].")
        if n < 0 or (n == 0 and affine is None):
            raise ValueError(f"n={n}: a cascade has one stage or more, or none but an affine stage (affine=learned).")
        if n > MOST_RUNS:
            raise ValueError(f"n={n}: a cascade has {MOST_RUNS} stages at most.")
        specs = list(stages) if stages else [model] * n
        if len(specs) != n:
            raise ValueError(f"cascade.stages names {len(specs)} networks and n={n}: leave n out, or make them agree.")
        if share_weights and stages and any(spec != specs[0] for spec in specs):
            raise ValueError("cascade.share_weights=true needs the same network at every stage of cascade.stages.")
        if integrate < 0:
            raise ValueError(f"cascade.integrate={integrate}: it counts squarings, so it is 0 (off) or more.")
        self.n = n
        self.affine = affine
        self.integrate = integrate
        self.detach = detach
        self.share_weights = share_weights
        self.sets_of_weights = min(n, 1) if share_weights else n
        self.nets = nn.ModuleList(
            build_net(spec, levels=self.levels, flow_multiplier=1 / n) for spec in specs[: self.sets_of_weights]
        )

    @property
    def size(self) -> Size | None:
        """Sides of volumes that the affine network needs; None without one, as any will do."""
        return self.affine.size if isinstance(self.affine, AffineNetwork) else None

    @property
    def needs_alignment(self) -> bool:
        """Whether each pair must come with an affine map."""
        return isinstance(self.affine, PrecomputedAffine)

    @abstractmethod
    def step(self, k: int, moving: Image, fixed: Image, before: Stage | None) -> Stage:
        """Run network k of `nets` after the stage `before`, which is None at the start."""

    def forward(
        self, moving: Image, fixed: Image, r: int = 1, repeat: str = "stage", alignment: Homogeneous | None = None
    ) -> Registration:
        """Register a batch of pairs.

        Args:
            moving: `(B, 1, X, Y, Z)` in 0..1, to be deformed.
            fixed: of the same shape, to be met.
            r: how often each network is applied (RCN, Section 3.3).
            repeat: `stage` repeats each stage in place (1, 1, 2, 2), `chain` the whole chain (1, 2, 1, 2).
            alignment: `(B, 4, 4)` from voxels of the fixed to those of the moving scan; only `affine=precomputed`
                needs it.
        """
        if moving.shape != fixed.shape:
            raise ValueError(f"moving is {tuple(moving.shape)} and fixed {tuple(fixed.shape)}: bring them to one size.")
        if moving.ndim != 5 or moving.shape[1] != 1 or min(size_of(moving)) < SMALLEST_SIDE:
            raise ValueError(
                f"Images are (B, 1, X, Y, Z) with {SMALLEST_SIDE} voxels a side or more; got {tuple(moving.shape)}."
            )
        stages: list[Stage] = []
        if self.affine is not None:
            stages.append(self._run(self._affine_stage, moving, fixed, alignment))
        for k in self.order(r, repeat):
            before = stages[-1] if stages else None
            if before is not None and self.detach:
                before = before.detached()
            stages.append(self._run(self.step, k, moving, fixed, before))
        return Registration(moving=moving, stages=tuple(stages), supervised=self.supervised(stages))

    def register(self, batch: Batch, r: int = 1, repeat: str = "stage") -> Registration:
        """Register the pairs of a batch, with their alignments if the cascade needs them; see `forward`."""
        alignment = batch.get("alignment") if self.needs_alignment else None
        return self(batch["moving"], batch["fixed"], r, repeat, alignment)

    def register_images(self, moving: Image, fixed: Image, r: int = 1) -> Registration:
        """Register a batch of images; if they must come with an alignment, it is the identity."""
        return self(moving, fixed, r, alignment=torch.eye(4, device=moving.device).expand(len(moving), 4, 4))

    def about(self, r: int = 1, repeat: str = "stage") -> dict[str, Any]:
        """Summarise how it registers, and its size.

        Returns:
            `n`, `r`, `repeat`, `parameters`, `weights_mib` of float32 weights, and `paper_size_mib` as DR-Net
            counts (weights and Adam's two moments).
        """
        self.order(r, repeat)
        parameters = sum(parameter.numel() for parameter in self.parameters())
        sizes = {"weights_mib": round(4 * parameters / 2**20, 3), "paper_size_mib": round(12 * parameters / 2**20, 3)}
        return {"n": self.n, "r": r, "repeat": repeat, "parameters": parameters, **sizes}

    def order(self, r: int, repeat: str) -> list[int]:
        """List which network runs at each step."""
        most = MOST_RUNS // max(self.n, 1)
        if not isinstance(r, int) or not 1 <= r <= most:
            raise ValueError(f"r={r}: how often each network is applied is an integer, 1 or more, here {most} at most.")
        check_choice("repeat", repeat, ["stage", "chain"])
        chain = [0 if self.share_weights else k for k in range(self.n)]
        return chain * r if repeat == "chain" else [k for k in chain for _ in range(r)]

    def supervised(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """Select the stages whose moved image the similarity sees: the last one (RCN, DR-Net), or all if detached."""
        return tuple(stages) if self.detach else (stages[-1],)

    def phase_done(self, done: float) -> float:
        """Compute which fraction of the current phase is done, for the learning rate."""
        return done

    def on_progress(self, done: float) -> None:
        """Note before a training step which fraction of the training is done; for strategies with phases."""

    def _run(self, stage: Callable[..., Stage], *inputs: Any) -> Stage:
        """Run a stage; with `recompute`, again for its gradient, in the same precision with the same random numbers."""
        if self.recompute == "none" or not torch.is_grad_enabled():
            return stage(*inputs)
        result: Stage = checkpoint(stage, *inputs, use_reentrant=False)
        return result

    def _affine_stage(self, moving: Image, fixed: Image, alignment: Homogeneous | None) -> Stage:
        if isinstance(self.affine, AffineNetwork):
            affine: Affine = self.affine(moving, fixed)  # a frozen one has no parameter that wants a gradient
        elif alignment is None:
            raise ValueError(
                "affine=precomputed needs an alignment of every scan to one and the same, and these have none: prepare "
                "them with regcascade prepare --align SCAN."
            )
        else:
            affine = Affine.of_voxels(alignment, size_of(moving))
        totals = {level: affine.displacement(level) for level in self.levels}
        return Stage(flow=totals[0], totals=totals, moved=warp(moving, totals[0]), affine=affine)


def continued(moving: Image, before: Stage | None, predicted: Mapping[int, LevelFlow], squarings: int = 0) -> Stage:
    """Continue `before` (None at the start) by what a network predicted at every level; `moving` is the original image.

    `predicted` holds flows by level, or velocities if `squarings` (K of `geometry.integrate`) is above 0.
    """
    flows = {level: integrate(field, squarings) if squarings else field for level, field in predicted.items()}
    totals = flows if before is None else {level: before.followed_by(flow, level) for level, flow in flows.items()}
    velocity = predicted[0] if squarings else None
    return Stage(flows[0], totals, warp(moving, totals[0]), velocity=velocity, squarings=squarings)


def moved_so_far(moving: Image, before: Stage | None) -> Image:
    """Return the moving image that the next network sees."""
    return moving if before is None else before.moved


def parts(cascade: Cascade) -> list[tuple[str, int]]:
    """List the parts of a cascade with their numbers of parameters."""
    return [(name, sum(weight.numel() for weight in part.parameters())) for name, part in cascade.named_children()]
