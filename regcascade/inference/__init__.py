"""Registering scans in native space: whatever their format, size, spacing and orientation."""

from regcascade.inference.pipeline import Registered, RegisterOptions, register
from regcascade.inference.scans import ScanFiles

__all__ = ["RegisterOptions", "Registered", "ScanFiles", "register"]
