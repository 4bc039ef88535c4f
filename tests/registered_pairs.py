"""A registered pair to draw: a box that the cascade moves where it belongs, on a non-cubic odd grid."""

from collections.abc import Callable

import pytest
import torch

from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import warp
from regcascade.registration import Registration, Stage
from regcascade.types import Batch

SIZE = (17, 14, 21)


@pytest.fixture
def registered() -> Callable[..., tuple[Batch, Registration]]:
    """A batch of two pairs and their registration by equal steps, after an affine one if asked."""

    def make(stages: int = 2, affine: bool = False, labels: bool = True) -> tuple[Batch, Registration]:
        fixed = torch.zeros(2, 1, *SIZE)
        fixed[:, :, 3:12, 4:9, 6:16] = 1
        moving = fixed.roll(2, dims=2)
        batch: Batch = {
            "fixed": fixed,
            "moving": moving,
            "fixed_spacing": torch.tensor([[1.0, 1.0, 3.0]]).repeat(2, 1),
            "moving_spacing": torch.ones(2, 3),
            "fixed_name": ["scan_1", "scan_3"],
            "moving_name": ["scan_2", "scan_4"],
        }
        if labels:
            batch["fixed_labels"] = fixed.long()
            batch["moving_labels"] = moving.long()
        return batch, Registration(moving, *[_stages(moving, stages, affine)] * 2)

    return make


def _stages(moving: torch.Tensor, count: int, affine: bool) -> tuple[Stage, ...]:
    stages = []
    if affine:
        identity = Affine(torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3), SIZE)
        nothing = identity.displacement()
        stages.append(Stage(nothing, {0: nothing}, moving, identity))
    for k in range(count):
        own, total = torch.zeros(2, 3, *SIZE), torch.zeros(2, 3, *SIZE)
        own[:, 0], total[:, 0] = 2 / count, 2 * (k + 1) / count
        stages.append(Stage(own, {0: total}, warp(moving, total)))
    return tuple(stages)
