"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import regcascade

MODULES = [
    module.name
    for module in pkgutil.walk_packages(regcascade.__path__, "regcascade.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("room", sorted({name.split(".")[1] for name in MODULES}))
def test_examples_are_true(room):
    for name in MODULES:
        if name.split(".")[1] == room:
            failed, _ = doctest.testmod(importlib.import_module(name))
            assert not failed, name


def test_examples_are_found():
    found = doctest.DocTestFinder().find(importlib.import_module("regcascade.geometry.warp"))
    assert sum(len(one.examples) for one in found) > 3
