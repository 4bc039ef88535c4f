"""Training objective: terms, the fields they see, and their weights."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from regcascade.geometry.warp import warp
from regcascade.losses.affine import affine_losses
from regcascade.losses.consistency import inverse_consistency_loss
from regcascade.losses.edge import edge_loss
from regcascade.losses.similarity import SIMILARITIES
from regcascade.losses.smoothness import REGULARIZERS, folding_loss
from regcascade.losses.supervision import landmark_loss, soft_dice_loss
from regcascade.registration import Registration
from regcascade.types import Batch, Image, swapped
from regcascade.utils.registry import Spec, check_choice

LEVEL_NAMES = {0: "", 1: "_half", 2: "_quarter"}

SUPERVISION = {"labels": "labels", "landmarks": "points"}  # how the batch's keys end, by the term that needs them


class Objective(nn.Module):
    """Weighted sum of loss terms: the loss of RCN, or that of DR-Net (Eqs. 13 to 15), by its weights.

    total = lambda1 similarity + lambda2 edge + smoothness + affine terms, where similarity and smoothness sum the
    full, half and quarter resolution with the weights 1, alpha, beta. The other terms, of neither RCN nor DR-Net,
    judge the total flow. `inverse_consistency` needs every pair registered both ways; every other term is then the mean
    of both.

    >>> from regcascade import build
    >>> moving, fixed = torch.rand(2, 1, 1, 16, 16, 16)
    >>> sorted(Objective(lambda2=0.5)(build("pyramid", "cr")(moving, fixed), fixed))
    ['edge', 'loss', 'similarity', 'smoothness']

    Args:
        lambda1: weight of the similarity.
        lambda2: weight of the edge loss, at full resolution.
        alpha: weight of the half-resolution field (enlarged) in similarity and smoothness.
        beta: the same for the quarter resolution.
        smoothness: weight of the smoothness term; RCN's program halves Eq. 10.
        smoothness_of: `stages`, each stage's own flow (RCN), or `fields`, the last stage's total fields without the
            affine map (DR-Net).
        affine_det: weight of 0.5 (det A - 1)^2, where an affine stage learns.
        affine_ortho: weight of the orthogonality of A, likewise.
        similarity: `cc`, `lncc`, `mi`, `mind`, `mse`, or a mapping with `name` and options.
        regularizer: `gradient` (Eq. 10) or `bending`.
        edge: `rms` or `printed`; see `edge_loss`.
        labels: weight of `soft_dice_loss`; above 0 every training scan needs labels.
        landmarks: weight of `landmark_loss`; above 0 every training scan needs points.
        folding: weight of `folding_loss`.
        inverse_consistency: weight of `inverse_consistency_loss`; above 0 a training step takes twice the time.
    """

    def __init__(
        self,
        *,
        lambda1: float = 1.0,
        lambda2: float = 0.0,
        alpha: float = 0.0,
        beta: float = 0.0,
        smoothness: float = 0.5,
        smoothness_of: str = "stages",
        affine_det: float = 0.1,
        affine_ortho: float = 0.1,
        similarity: Spec = "cc",
        regularizer: Spec = "gradient",
        edge: str = "rms",
        labels: float = 0.0,
        landmarks: float = 0.0,
        folding: float = 0.0,
        inverse_consistency: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("loss.smoothness_of", smoothness_of, ["stages", "fields"])
        check_choice("loss.edge", edge, ["rms", "printed"])
        self.weights = {
            "similarity": lambda1, "edge": lambda2, "smoothness": smoothness,
            "affine_det": affine_det, "affine_ortho": affine_ortho, "labels": labels, "landmarks": landmarks,
            "folding": folding, "inverse_consistency": inverse_consistency,
        }  # fmt: skip
        self.level_weights = {0: 1.0, 1: alpha, 2: beta}
        for option, value in [*self.weights.items(), ("alpha", alpha), ("beta", beta)]:
            if value < 0:
                raise ValueError(f"The loss weight of {option} is {value}: weights are 0 or more.")
        for level, weight in ((1, alpha), (2, beta)):
            for term in ("similarity", "smoothness"):
                self.weights[term + LEVEL_NAMES[level]] = self.weights[term] * weight
        self.smoothness_of = smoothness_of
        self.edge = edge
        self.similarity = SIMILARITIES.build(similarity)
        self.regularizer = REGULARIZERS.build(regularizer)

    @property
    def levels(self) -> list[int]:
        """Levels that have a weight."""
        return [level for level, weight in self.level_weights.items() if weight > 0]

    def check_levels(self, available: Iterable[int]) -> None:
        """Raise ValueError if a level that a cascade does not predict has a weight."""
        missing = [level for level in self.levels if level not in available]
        if missing:
            options = " and ".join({1: "loss.alpha", 2: "loss.beta"}[level] for level in missing)
            raise ValueError(
                f"{options} weigh fields at lower resolution, which this cascade does not predict: "
                "use cascade=mcr, or set them to 0."
            )

    def check_detached(self) -> None:
        """Raise ValueError if only the last stage would learn to be smooth, as no gradient reaches the others."""
        if self.weights["smoothness"] and self.smoothness_of == "fields":
            raise ValueError(
                "cascade.detach=true with loss.smoothness_of=fields: only the last stage would learn to be smooth. Set "
                "loss.smoothness_of=stages (as loss=rcn does), or leave detach out."
            )

    def check_supervision(self, scans_without: Callable[[str], Sequence[str]]) -> None:
        """Raise ValueError if a term with a weight needs `labels` or `points` that a training scan lacks."""
        for term, part in SUPERVISION.items():
            without = scans_without(part) if self.weights[term] > 0 else []
            if without:
                raise ValueError(
                    f"loss.{term}={self.weights[term]} needs {part} of every scan that trains, and {len(without)} have "
                    f"none ({without[0]} among them): leave them out by data.train, or set loss.{term}=0."
                )

    @property
    def both_ways(self) -> bool:
        """Whether training registers every pair the other way round too."""
        return self.weights["inverse_consistency"] > 0

    def forward(
        self,
        registration: Registration,
        fixed: Image,
        batch: Batch | None = None,
        reverse: Registration | None = None,
    ) -> dict[str, Tensor]:
        """Compute every term, unweighted and averaged over the batch, and their weighted sum as `loss`.

        `batch` has the labels and points for weak supervision; None leaves its terms out. `reverse` is the registration
        of the same pairs the other way round (`types.swapped`); None leaves the inverse consistency out.
        """
        terms = self._terms(registration, fixed, batch)
        if reverse is not None:
            back = self._terms(reverse, registration.moving, None if batch is None else swapped(batch))
            terms = {name: (value + back[name]) / 2 for name, value in terms.items()}
            terms["inverse_consistency"] = inverse_consistency_loss(registration.flow, reverse.flow)
        terms["loss"] = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return terms

    def _terms(self, registration: Registration, fixed: Image, batch: Batch | None) -> dict[str, Tensor]:
        """Compute the terms of one direction, unweighted."""
        fields = {level: registration.enlarged_total(level) for level in self.levels}
        terms = {"similarity": _sum_of(self.similarity(stage.moved, fixed) for stage in registration.supervised)}
        for level, field in fields.items():
            if level > 0:
                terms[f"similarity{LEVEL_NAMES[level]}"] = self.similarity(warp(registration.moving, field), fixed)
        terms |= self._smoothness(registration, fields)
        if self.weights["edge"]:
            terms["edge"] = edge_loss(registration.moved, fixed, form=self.edge)
        if self.weights["folding"]:
            terms["folding"] = folding_loss(registration.flow)
        if registration.affine is not None and not registration.affine.frozen:
            for name, value in affine_losses(registration.affine.matrix).items():
                terms[f"affine_{name}"] = value
        if batch is not None:
            self.check_supervision(lambda part: [] if f"fixed_{part}" in batch else batch["fixed_name"])
            if self.weights["labels"]:
                terms["labels"] = soft_dice_loss(batch["moving_labels"], batch["fixed_labels"], registration.flow)
            if self.weights["landmarks"]:
                terms["landmarks"] = landmark_loss(batch["fixed_points"], batch["moving_points"], registration.flow)
        return terms

    def _smoothness(self, registration: Registration, fields: dict[int, Tensor]) -> dict[str, Tensor]:
        if not registration.deformable_stages:
            return {}
        if self.smoothness_of == "stages":
            return {"smoothness": _sum_of(self.regularizer(stage.flow) for stage in registration.deformable_stages)}
        return {
            f"smoothness{LEVEL_NAMES[level]}": self.regularizer(registration.without_affine(field, level))
            for level, field in fields.items()
        }


def _sum_of(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
