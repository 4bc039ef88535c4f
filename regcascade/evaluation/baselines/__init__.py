"""Other registration methods, evaluated as ours are. A new file here that registers a class adds one."""

import sys

from regcascade.evaluation.baselines.base import METHODS, Method, Pair, RegistrationFailed
from regcascade.utils.registry import import_package

__all__ = ["METHODS", "Method", "Pair", "RegistrationFailed", "build_method"]

import_package(sys.modules[__name__])


build_method = METHODS.build  # from a name, or a mapping with `name` and options as in `conf/method`
