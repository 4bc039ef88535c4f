"""Keeping cases in memory: what is rounded, and what is chosen where memory is short."""

import math

import pytest
import torch

from regcascade.data import cache as cache_module
from regcascade.data.cache import Cache, chosen_store
from regcascade.data.case import Case

SIZE = (10, 10, 10)


def case() -> Case:
    image = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    return Case("a", image, (1.0, 2.0, 3.0), torch.arange(120).view(1, 4, 5, 6).short(), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("store", "error"), [("float32", 0), ("float16", 2**-12), ("uint8", 0.5 / 255 + 1e-7), ("none", 0)]
)
def test_a_case_comes_back_as_float32_and_always_the_same(store, error):
    kept, given = Cache(store), case()
    first = kept.keep(3, given)
    assert first.image.dtype == torch.float32 and (first.image - given.image).abs().max() <= error
    assert torch.equal(first.labels, given.labels) and torch.equal(first.points, given.points)
    assert (first.name, first.spacing) == (given.name, given.spacing)
    again = kept.get(3)
    assert (again is None) == (store == "none")
    assert again is None or torch.equal(again.image, first.image)
    assert kept.get(4) is None


def test_float32_keeps_the_very_case():
    kept, given = Cache("float32"), case()
    assert kept.keep(0, given) is given and kept.get(0) is given


@pytest.mark.parametrize(
    ("times", "chosen"), [(2.0, "float32"), (1.99, "float16"), (1.34, "float16"), (1.33, "none"), (math.inf, "float32")]
)
def test_auto_takes_the_first_that_fits_half_of_the_available_memory(times, chosen, monkeypatch, capsys):
    """`times` as much memory as ten cases take as float32: 6 bytes a voxel."""
    monkeypatch.setattr(cache_module, "available_memory", lambda: times * 10 * 1000 * 6)
    assert chosen_store("auto", 10, SIZE) == chosen_store(True, 10, SIZE) == chosen
    told = " ".join(capsys.readouterr().err.split())
    assert ("10 scans take" in told) == (chosen != "float32")
    assert {"float32": "", "float16": "kept as float16", "none": "read anew"}[chosen] in told


def test_what_is_asked_for_is_taken_and_nothing_else_known(capsys):
    assert [chosen_store(store, 10**9, SIZE) for store in ("float32", "float16", "uint8", "none", False)] == [
        "float32", "float16", "uint8", "none", "none",
    ]  # fmt: skip
    assert not capsys.readouterr().err
    with pytest.raises(ValueError, match=r"data\.cache=float64 is not valid\. Known: auto, float32"):
        chosen_store("float64", 1, SIZE)
