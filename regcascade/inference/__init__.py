"""Register scans of any format, size, spacing and orientation, in native space."""

from regcascade.inference.pipeline import Registered, RegisterOptions, register
from regcascade.inference.scans import ScanFiles

__all__ = ["RegisterOptions", "Registered", "ScanFiles", "register"]
