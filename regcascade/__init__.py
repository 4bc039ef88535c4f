"""Cascades of networks for unsupervised deformable registration of 3D medical images."""

from regcascade.cascades import build
from regcascade.cascades.checkpoint import load
from regcascade.inference import register
from regcascade.utils.version import __version__

__all__ = ["__version__", "build", "load", "register"]
