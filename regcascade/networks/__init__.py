"""Base networks. A new file in this folder that registers a class adds a network."""

import sys
from collections.abc import Iterable

from regcascade.networks.base import NETS, Network
from regcascade.utils.registry import Spec, import_package

__all__ = ["NETS", "Network", "build_net", "names"]

import_package(sys.modules[__name__])


def names() -> list[str]:
    """Names of all base networks, sorted.

    >>> "drnet" in names()
    True
    """
    return NETS.names()


def build_net(spec: Spec, *, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0) -> Network:
    """Build a base network.

    >>> import torch
    >>> net = build_net({"name": "voxelmorph", "width_multiplier": 2})
    >>> flows = net(moving=torch.rand(1, 1, 16, 16, 16), fixed=torch.rand(1, 1, 16, 16, 16))
    >>> {level: tuple(flow.shape) for level, flow in flows.items()}
    {0: (1, 3, 16, 16, 16)}

    Args:
        spec: name of the network, or a mapping with `name` and options, as in `conf/model`.
        levels: levels to predict flows at (0 full, 1 half, 2 quarter resolution).
        flow_multiplier: factor on every flow; 1/n in a cascade of n stages.

    Raises:
        ValueError: for an unknown name or option (the message lists the known ones), or a level it does not have.
    """
    return NETS.build(spec, levels=levels, flow_multiplier=flow_multiplier)
