"""Cascades of networks for unsupervised deformable registration of 3D medical images."""

from regcascade.cascades import build
from regcascade.checkpoint import load
from regcascade.native import register
from regcascade.version import __version__

__all__ = ["__version__", "build", "load", "register"]
