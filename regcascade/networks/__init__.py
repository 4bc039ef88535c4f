"""Base networks. A new file in this folder that registers a class is a new network."""

import sys
from collections.abc import Iterable

from regcascade.networks.base import NETS, Network
from regcascade.utils.registry import Spec, import_package

__all__ = ["NETS", "Network", "build_net", "names"]

import_package(sys.modules[__name__])


def names() -> list[str]:
    """The names of all base networks."""
    return NETS.names()


def build_net(spec: Spec, *, levels: Iterable[int] = (0,), flow_multiplier: float = 1.0) -> Network:
    """Build a base network.

    Args:
        spec: its name, or a mapping with `name` and its options, as in `conf/model`.
        levels: the levels at which flows are wanted (0 full, 1 half, 2 quarter resolution).
        flow_multiplier: factor on every flow; 1/n in a cascade of n stages.

    Raises:
        ValueError: for an unknown name or option (the message names the known ones), or levels it does not have.
    """
    name, options = NETS.options(spec)
    return NETS.get(name)(**options, levels=levels, flow_multiplier=flow_multiplier)
