"""Registering scans in native space: whatever their format, size, spacing and orientation."""

from regcascade.native.pipeline import Registered, RegisterOptions, register
from regcascade.native.scans import ScanFiles

__all__ = ["RegisterOptions", "Registered", "ScanFiles", "register"]
