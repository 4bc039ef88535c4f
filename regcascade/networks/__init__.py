"""Base networks. A new file in this folder that registers a class adds a network."""

import sys
from collections.abc import Iterable

from regcascade.networks.base import NETS, Network
from regcascade.utils.registry import Spec, import_package

__all__ = ["NETS", "Network", "build_net", "names"]

import_package(sys.modules[__name__])


def names() -> list[str]:
    """Names of all base networks, sorted."""
    return NETS.names()


def build_net(spec: Spec, *, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0) -> Network:
    """Build a base network.

    >>> import torch
    >>> net = build_net({"name": "voxelmorph", "width_multiplier": 2})
    >>> net(moving=torch.rand(1, 1, 16, 16, 16), fixed=torch.rand(1, 1, 16, 16, 16))[0].shape
    torch.Size([1, 3, 16, 16, 16])

    Args:
        spec: name of the network, or a mapping with `name` and options, as in `conf/model`.
        levels, flow_multiplier: see `Network`.

    Raises:
        ValueError: for an unknown name or option, or a level that the network does not have.
    """
    return NETS.build(spec, levels=levels, flow_multiplier=flow_multiplier)
