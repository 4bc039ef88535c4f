"""Losses: similarity, smoothness, edge, affine terms, folding, inverse consistency, weak supervision, the objective."""

from regcascade.losses.affine import affine_losses
from regcascade.losses.consistency import inverse_consistency_loss
from regcascade.losses.edge import edge_loss
from regcascade.losses.objective import Objective
from regcascade.losses.smoothness import folding_loss, smoothness
from regcascade.losses.supervision import landmark_loss, soft_dice_loss
from regcascade.metrics.correlation import correlation_coefficient

__all__ = [
    "Objective",
    "affine_losses",
    "correlation_coefficient",
    "edge_loss",
    "folding_loss",
    "inverse_consistency_loss",
    "landmark_loss",
    "smoothness",
    "soft_dice_loss",
]
