"""Losses: similarity, smoothness, edge, affine terms, weak supervision, and the objective that weighs them."""

from regcascade.losses.affine import affine_losses
from regcascade.losses.edge import edge_loss
from regcascade.losses.objective import Objective
from regcascade.losses.similarity import correlation_coefficient
from regcascade.losses.smoothness import smoothness
from regcascade.losses.supervision import landmark_loss, soft_dice_loss

__all__ = [
    "Objective",
    "affine_losses",
    "correlation_coefficient",
    "edge_loss",
    "landmark_loss",
    "smoothness",
    "soft_dice_loss",
]
