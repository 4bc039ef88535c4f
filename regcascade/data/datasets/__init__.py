"""Data sets: which scans there are, and which pairs. A new file in this folder that registers a class adds one."""

import sys

from regcascade.utils.registry import import_package

import_package(sys.modules[__name__])
