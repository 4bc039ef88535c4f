"""Cascades of networks for unsupervised deformable registration of 3D medical images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regcascade.utils.version import __version__

if TYPE_CHECKING:
    from regcascade.cascades import build
    from regcascade.cascades.checkpoint import load
    from regcascade.inference import register

__all__ = ["__version__", "build", "load", "register"]

# Imported when first asked for: they need torch, MONAI and Lightning, and `regcascade --help` needs none of them.
_LAZY = {"build": "regcascade.cascades", "load": "regcascade.cascades.checkpoint", "register": "regcascade.inference"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
