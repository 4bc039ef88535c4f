"""How often a training applies each network (shared weights: RCN, Section 3.3)."""

from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Repeats:
    """The r of each training step: always the same, or drawn from `least` to `most`.

    A draw depends on the seed and the step alone, so ranks agree and a resumed run draws as an uninterrupted one.
    `repeat` is that of `Cascade.forward`.
    """

    least: int = 1
    most: int = 1
    repeat: str = "stage"
    seed: int = 0

    @classmethod
    def of(cls, train_r: Any, repeat: str = "stage", seed: int = 0) -> "Repeats":
        """Read the option `train_r`, an integer or a range `[least, most]`; raise ValueError for anything else."""
        given = train_r if isinstance(train_r, list | tuple) else [train_r, train_r]
        whole = all(type(r) is int for r in given)  # no bool
        if len(given) != 2 or not whole or not 1 <= given[0] <= given[1]:
            raise ValueError(f"train_r={train_r}: give an integer, 1 or more, or a range of them, such as [1,3].")
        return cls(given[0], given[1], repeat, seed)

    def at(self, step: int) -> int:
        """Compute the r of a training step."""
        return Random(f"{self.seed} {step}").randint(self.least, self.most)

    def unless(self, r: int | None) -> int:
        """Choose the r of an evaluation: the one given, or as in training at most."""
        return self.most if r is None else r
