"""Registration methods other than ours, evaluated in the same way. A new file here that registers a class adds one."""

import sys

from regcascade.evaluation.baselines.base import METHODS, Method, Pair, RegistrationFailed
from regcascade.utils.registry import Spec, import_package

__all__ = ["METHODS", "Method", "Pair", "RegistrationFailed", "build_method", "names"]

import_package(sys.modules[__name__])


def names() -> list[str]:
    """The names of all methods."""
    return METHODS.names()


def build_method(spec: Spec) -> Method:
    """Make a method.

    Args:
        spec: its name, or a mapping with `name` and its options, as in `conf/method`.

    Raises:
        ValueError: for an unknown name or option, or where the package it runs is not installed.
    """
    name, options = METHODS.options(spec)
    return METHODS.get(name)(**options)
