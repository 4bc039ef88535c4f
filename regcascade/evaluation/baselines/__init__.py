"""Other registration methods, evaluated as ours are. A new file here that registers a class adds one."""

import sys

from regcascade.evaluation.baselines.base import METHODS, Method, Pair, RegistrationFailed
from regcascade.utils.registry import Spec, import_package

__all__ = ["METHODS", "Method", "Pair", "RegistrationFailed", "build_method"]

import_package(sys.modules[__name__])


def build_method(spec: Spec) -> Method:
    """Build a method from its name, or from a mapping with `name` and options, as in `conf/method`.

    Raises:
        ValueError: for an unknown name or option, or if the package it runs is not installed.
    """
    return METHODS.build(spec)
