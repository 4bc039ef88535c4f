"""No registration at all."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from regcascade.evaluation.baselines.base import METHODS, Method, Pair


@METHODS.register("identity")
@dataclass(frozen=True)
class Identity(Method):
    """No registration: the baseline that every method must beat."""

    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """Return a flow of zeros."""
        return torch.zeros(3, *pair.fixed.shape, device=pair.fixed.device)
