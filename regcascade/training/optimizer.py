"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from regcascade.utils.registry import check_choices

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
MOMENTS = {"adam": 2, "adamw": 2, "sgd": 0}  # numbers stored per weight


@dataclass(frozen=True)
class Optimization:
    """Optimiser, learning rate and its schedule.

    Attributes:
        name: `adam` (RCN, DR-Net), `adamw` or `sgd`.
        lr: initial learning rate.
        weight_decay: weight decay of the optimiser.
        schedule: `constant`; `halving` at the steps of `halve_at` (RCN, DR-Net); `cosine` from `lr` to `lr` / 100 at
            the end of the training, in steps or in time.
        halve_at: optimiser steps at which the learning rate is halved.
        warmup_steps: steps over which the learning rate rises linearly to `lr`. In Adam's large first steps a deep
            network can leave the identity for good.
        head_lr: learning rate of the flow heads, as a multiple of `lr`. Heads start near zero, and the rest of the
            network learns little until they have grown.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "halving", "cosine"] = "constant"
    halve_at: Sequence[int] = ()
    warmup_steps: int = 0
    head_lr: float = 1.0

    def __post_init__(self) -> None:
        check_choices("optimizer", self)
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr={self.lr}: it must be above 0.")
        if not 0 < self.head_lr < math.inf:
            raise ValueError(f"optimizer.head_lr={self.head_lr}: it is a multiple of lr, above 0.")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps={self.warmup_steps}: it must be 0 or more.")
        if not isinstance(self.halve_at, Sequence) or not all(isinstance(step, int) for step in self.halve_at):
            raise ValueError(f"optimizer.halve_at={self.halve_at}: it is a list of steps, such as [60000,80000].")
        if bool(self.halve_at) != (self.schedule == "halving"):
            raise ValueError(
                f"optimizer.schedule={self.schedule} and optimizer.halve_at={list(self.halve_at)} contradict each "
                "other: schedule=halving needs the steps at which to halve, and no other schedule has any."
            )

    def optimizer(
        self, parameters: Iterable[torch.nn.Parameter], heads: Iterable[torch.nn.Parameter] = (), mixed: bool = False
    ) -> torch.optim.Optimizer:
        """Build the optimiser.

        Args:
            parameters: parameters to train.
            heads: those of `parameters` that learn at `head_lr`.
            mixed: mixed precision, with which Lightning cannot clip gradients of a fused update.
        """
        parameters = list(parameters)
        # The fused update is several times faster on a CPU.
        fused = not mixed and all(parameter.device.type == "cpu" for parameter in parameters)
        faster = {id(head) for head in heads} if self.head_lr != 1 else set()
        groups = [
            {"params": [each for each in parameters if (id(each) in faster) == is_head], "lr": lr, "name": name}
            for is_head, lr, name in ((False, self.lr, "networks"), (True, self.lr * self.head_lr, "heads"))
        ]
        groups = [group for group in groups if group["params"]]
        return OPTIMIZERS[self.name](groups, lr=self.lr, weight_decay=self.weight_decay, fused=fused or None)

    def factor(self, step: int, done: Callable[[], float]) -> float:
        """Compute the factor on `lr` at an optimiser step; `done` returns the fraction of the training that is done."""
        warm = min((step + 1) / (self.warmup_steps + 1), 1.0)
        if self.schedule == "halving":
            return warm * 0.5 ** sum(step >= milestone for milestone in self.halve_at)
        if self.schedule == "cosine":
            return warm * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done(), 1.0))) / 2)
        return warm
