"""Losses: similarity, smoothness, edge, affine terms, and the objective that weighs them."""

from regcascade.losses.affine import affine_losses
from regcascade.losses.edge import edge_loss
from regcascade.losses.objective import Objective
from regcascade.losses.similarity import correlation_coefficient
from regcascade.losses.smoothness import smoothness

__all__ = ["Objective", "affine_losses", "correlation_coefficient", "edge_loss", "smoothness"]
