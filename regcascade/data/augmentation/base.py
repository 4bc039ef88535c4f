"""What every augmentation shares: the registry, building by name, and pulling a moving scan through a flow."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from regcascade.geometry.warp import sample_at, warp, warp_labels
from regcascade.types import Batch, Flow, Points
from regcascade.utils.registry import Registry, Spec

NONE = "none"
AugmentationSpec = Spec | Sequence[Spec] | None


class Augmentation(ABC):
    """A random change of a batch, on whatever device the batch is."""

    @abstractmethod
    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A changed copy; the same for the same state of the generator (None: the global one of the CPU)."""


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


class InTurn(Augmentation):
    """Several augmentations, each of what the one before it made."""

    def __init__(self, parts: Sequence[Augmentation]) -> None:
        self.parts = list(parts)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """The batch after every part, all drawing from one generator."""
        for part in self.parts:
            batch = part(batch, generator)
        return batch


def build_augmentation(spec: AugmentationSpec) -> Augmentation | None:
    """The augmentation of a name, of a mapping with `name` and options, or of a list of them in turn.

    Returns:
        None for `none`, for a list of nothing else, and for None.

    Raises:
        ValueError: for an unknown name or option, naming the valid ones.
    """
    specs = [spec] if spec is None or isinstance(spec, str | Mapping) else spec
    parts = [part for part in map(_build_one, specs) if part is not None]
    return InTurn(parts) if len(parts) > 1 else next(iter(parts), None)


def each_by_its_own(augmentation: Augmentation, batch: Batch, generators: Sequence[torch.Generator]) -> Batch:
    """A changed copy in which every pair has random numbers of its own, so that it does not matter with which others
    it shares a batch."""
    parts = [  # every value of a batch can be cut, which a TypedDict cannot say
        augmentation(cast(Batch, {key: value[k : k + 1] for key, value in batch.items()}), generator)  # type: ignore[index]
        for k, generator in enumerate(generators)
    ]
    if len(parts) == 1:
        return parts[0]
    # The keys of a batch are those of a Batch.
    columns = {key: [part[key] for part in parts] for key in parts[0]}  # type: ignore[literal-required]
    return cast(Batch, {key: _joined(values) for key, values in columns.items()})


def deform_moving(batch: Batch, flow: Flow, pull: Callable[[Points], Points]) -> Batch:
    """A copy of the batch with the moving image (linearly), labels (by nearest) and points pulled through a flow.

    Args:
        batch: the pairs; the fixed scans stay.
        flow: `(B, 3, X, Y, Z)` in voxels, on the moving grid; beyond the border a scan continues with its edge.
        pull: where points of the moving scan lie afterwards: the inverse of `p -> p + flow(p)`.
    """
    changed = batch.copy()
    changed["moving"] = warp(batch["moving"], flow)
    if "moving_labels" in batch:
        changed["moving_labels"] = warp_labels(batch["moving_labels"], flow)
    if "moving_points" in batch:
        changed["moving_points"] = pull(batch["moving_points"])
    return changed


def pull_points(points: Points, field: Flow, rounds: int = 100, tolerance: float = 0.05) -> Points:
    """Where points of an image lie after it was pulled through `field`: p with `p + field(p) = point`.

    Solved by the fixed-point iteration `p <- point - field(p)`. A point at which it ends more than
    `tolerance` voxels off, because the field is too steep there, becomes NaN.
    """
    place = points
    for _ in range(rounds):
        place = points - sample_at(field, place).to(points.dtype)
    error = (place + sample_at(field, place) - points).abs().amax(-1, keepdim=True)
    return place.masked_fill(error > tolerance, float("nan"))


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Float32 numbers in 0..1 on the device of `like`; a generator of the CPU gives the same ones for every device."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device).to(like.device)


def check_number(option: str, value: object, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """A finite number from `minimum` to `maximum`; the message names the option as `data.augmentation.<option>`."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not minimum <= number <= maximum or number == math.inf:
        valid = f"{minimum:g} or more" if maximum == math.inf else f"{minimum:g} to {maximum:g}"
        raise ValueError(f"data.augmentation.{option}={value} is not valid: give a number, {valid}.")
    return number


def _joined(values: list[Any]) -> Any:
    return torch.cat(values) if isinstance(values[0], Tensor) else [item for value in values for item in value]


def _build_one(spec: object) -> Augmentation | None:
    if spec is None or spec == NONE or (isinstance(spec, Mapping) and spec.get("name") == NONE):
        return None
    if not isinstance(spec, Mapping) and spec not in AUGMENTATIONS.names():
        raise ValueError(f"data.augmentation={spec} is not valid. Known: {', '.join([NONE, *AUGMENTATIONS.names()])}.")
    name, options = AUGMENTATIONS.options(spec)
    return AUGMENTATIONS.get(name)(**options)
