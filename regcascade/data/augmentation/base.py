"""What every augmentation shares: the registry, building by name, and pulling a moving scan through a flow."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
        """Change a copy of a batch by random numbers of the generator (None: the global one of the CPU)."""


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


class InTurn(Augmentation):
    """Several augmentations, one after the other."""

    def __init__(self, parts: Sequence[Augmentation]) -> None:
        self.parts = list(parts)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Apply every part, all drawing from one generator."""
        for part in self.parts:
            batch = part(batch, generator)
        return batch


def build_augmentation(spec: AugmentationSpec) -> Augmentation | None:
    """Build the augmentation of a name, of a mapping with `name` and options, or of a list of them in turn.

    Returns:
        None for `none`, for a list of nothing else, and for None.

    Raises:
        ValueError: for an unknown name or option, naming the valid ones.
    """
    parts = []
    for one in [spec] if spec is None or isinstance(spec, str | Mapping) else spec:
        if (one.get("name") if isinstance(one, Mapping) else one) in (None, NONE):
            continue
        if not isinstance(one, Mapping) and one not in AUGMENTATIONS.names():
            known = ", ".join([NONE, *AUGMENTATIONS.names()])
            raise ValueError(f"data.augmentation={one} is not valid. Known: {known}.")
        parts.append(AUGMENTATIONS.build(one))
    return InTurn(parts) if len(parts) > 1 else next(iter(parts), None)


def each_by_its_own(augmentation: Augmentation, batch: Batch, generators: Sequence[torch.Generator]) -> Batch:
    """Change a copy of a batch, every pair by a generator of its own."""
    parts = [  # every value of a batch can be cut, which a TypedDict cannot say
        augmentation(cast(Batch, {key: value[k : k + 1] for key, value in batch.items()}), generator)  # type: ignore[index]
        for k, generator in enumerate(generators)
    ]
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for key, first in parts[0].items():
        values: list[Any] = [part[key] for part in parts]  # type: ignore[literal-required]
        joined[key] = torch.cat(values) if isinstance(first, Tensor) else [item for value in values for item in value]
    return cast(Batch, joined)


def deform_moving(batch: Batch, flow: Flow, pull: Callable[[Points], Points]) -> Batch:
    """Pull the moving image (linearly), labels (by nearest) and points of a batch through a flow, in a copy.

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
    """Find where points of an image lie after it was pulled through `field`: p with `p + field(p) = point`.

    It is solved by the iteration `p <- point - field(p)`. A point at which this ends more than `tolerance` voxels off,
    because the field is too steep there, becomes NaN.
    """
    place = points
    for _ in range(rounds):
        place = points - sample_at(field, place).to(points.dtype)
    error = (place + sample_at(field, place) - points).abs().amax(-1, keepdim=True)
    return place.masked_fill(error > tolerance, float("nan"))


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw float32 numbers in 0..1, put on the device of `like`."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device).to(like.device)
