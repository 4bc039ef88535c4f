"""Cascades of networks: `build` builds one; each strategy is a file of `strategies`, which registers itself."""

from collections.abc import Sequence

from regcascade.cascades import strategies
from regcascade.cascades.base import CASCADES, Cascade
from regcascade.networks.affine import AffineNetwork, PrecomputedAffine
from regcascade.utils.registry import Spec, check_choice, check_options, import_package

__all__ = ["AFFINE_CHOICES", "CASCADES", "Cascade", "build", "names"]

import_package(strategies)

AFFINE_CHOICES = ("none", "learned", "frozen", "precomputed")


def names() -> list[str]:
    """Names of all cascade strategies, sorted."""
    return CASCADES.names()


def build(
    model: Spec = "voxelmorph",
    cascade: Spec = "cr",
    n: int | None = None,
    affine: Spec = "none",
    size: Sequence[int] | None = None,
) -> Cascade:
    """Build a cascade of networks.

    >>> import torch
    >>> cascade = build("voxelmorph", "cr", n=2)
    >>> cascade(moving=torch.rand(1, 1, 16, 16, 16), fixed=torch.rand(1, 1, 16, 16, 16)).flow.shape
    torch.Size([1, 3, 16, 16, 16])

    Args:
        model: base network: its name, or a mapping with `name` and options as in `conf/model`.
        cascade: strategy: its name, or a mapping as in `conf/cascade`.
        n: number of deformable stages; None means as many as `cascade` lists in `stages`, or 1.
        affine: one of `AFFINE_CHOICES`, or a mapping with `name` and options as in `conf/affine`.
        size: sides of the volumes; only `learned` and `frozen` need it.

    Raises:
        ValueError: for unknown names and options, or options that contradict each other.
    """
    name, options = CASCADES.options(cascade)
    if n is None:
        n = len(options.get("stages") or [model])
    if not isinstance(n, int):
        raise ValueError(f"n={n}: the number of stages is an integer.")
    return CASCADES.get(name)(model, n, _build_affine(affine, size), **options)


def _build_affine(spec: Spec, size: Sequence[int] | None) -> AffineNetwork | PrecomputedAffine | None:
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    check_choice("affine", name, AFFINE_CHOICES)
    if name in ("none", "precomputed"):
        check_options(f"affine={name}", options, PrecomputedAffine)  # which has none either
        return None if name == "none" else PrecomputedAffine()
    check_options(f"affine={name}", options, AffineNetwork, reserved=("size",))
    if size is None:
        raise ValueError(f"affine={name} needs size=(X, Y, Z): the affine network belongs to one volume size.")
    x, y, z = size
    network = AffineNetwork((x, y, z), **options)
    return network.requires_grad_(name == "learned")
