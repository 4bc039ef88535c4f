"""Memory counted before a step runs: against real steps, and what recomputation saves."""

import pytest
import torch

from regcascade import build
from regcascade.losses import Objective
from regcascade.training.memory_estimate import LiveMemory, Prediction, Step

SIZE = (16, 32, 24)
MIB = 2**20


def step(model="voxelmorph", cascade="cr", size=SIZE, **options) -> Step:
    weights = {"alpha": 0.5, "beta": 0.25} if cascade == "mcr" else {}
    return Step(lambda n: build(model, cascade, n), Objective(**weights), size, **options)


def really(of: Step, n: int) -> int:
    """The peak of the tensors of a step that runs, gradients of weights left out."""
    cascade = of.build(n).train()
    cascade.recompute = of.recompute
    live = LiveMemory(cascade.parameters())
    for weight in cascade.parameters():
        weight.register_post_accumulate_grad_hook(live.leave_out_gradient)
    with live:
        of.run(cascade)
    return live.peak


@pytest.mark.parametrize(
    ("model", "cascade", "recompute"),
    [("voxelmorph", "mcr", "none"), ("voxelmorph", "mcr", "stage"), ("pyramid", "cr", "stage")],
)
def test_it_is_what_a_step_takes(model, cascade, recompute):
    of = step(model, cascade, recompute=recompute)
    assert of.footprint(2).activations == pytest.approx(really(of, 2), rel=0.02)


def test_the_count_follows_what_lives():
    live = LiveMemory()
    with live:
        a = torch.ones(1000)
        b = a.view(10, 100)
        c = a + 1
        del a
        assert live.now == 8000  # the view keeps the first
        del b, c
        d = torch.ones(10)
        d.add_(1)
    assert live.now == 40 and live.peak == 8000


def test_parts_are_what_they_are_called():
    footprint = step(moments=2).footprint(1)
    weights = 4 * sum(weight.numel() for weight in build("voxelmorph", "cr", 1).parameters())
    assert (footprint.weights, footprint.gradients, footprint.moments) == (weights, weights, 2 * weights)
    assert footprint.total == 4 * weights + footprint.activations
    frozen = Step(lambda n: build("voxelmorph", "cr", n, "frozen", SIZE), Objective(), SIZE).footprint(1)
    assert frozen.gradients == weights < frozen.weights


def test_activations_grow_with_the_volume_and_halve_in_half_precision():
    size = (16, 32, 32)
    small, large = (step(size=sides).footprint(1).activations for sides in (size, (32, 32, 64)))
    assert large == pytest.approx(4 * small, rel=0.02)
    assert 0.4 * small < step(size=size, precision="bf16-mixed").footprint(1).activations < 0.8 * small


def test_with_recomputation_a_stage_adds_a_tenth_of_the_first_at_most():
    for cascade in ("cr", "mcr"):
        first, added = {}, {}
        for recompute in ("none", "stage"):
            of = step("voxelmorph", cascade, size=(64, 64, 64), recompute=recompute)
            first[recompute], three = (of.footprint(n).activations for n in (1, 3))
            added[recompute] = (three - first[recompute]) / 2
        assert added["stage"] < 0.1 * first["stage"]
        assert added["none"] > 0.8 * first["stage"]


@pytest.mark.parametrize("recompute", ["none", "stage"])
def test_more_stages_lie_on_the_line(recompute):
    of = step("voxelmorph", "cr", recompute=recompute)
    assert of.prediction().at(4) == pytest.approx(of.footprint(4).total, rel=0.03)


@pytest.mark.parametrize("recompute", ["none", "stage"])
def test_it_draws_no_random_number_and_leaves_nothing_behind(recompute):
    state = torch.get_rng_state()
    step(recompute=recompute).footprint(2)
    assert torch.equal(torch.get_rng_state(), state)
    build("voxelmorph", "cr", 1)(*torch.rand(2, 1, 1, *SIZE)).flow.sum().backward()  # with tensors that have data


def test_the_largest_n_is_what_fits():
    prediction = Prediction(first=10.0, added=5.0)
    assert [prediction.largest_n(free) for free in (9.9, 10.0, 14.9, 15.0, 30.0)] == [0, 1, 1, 2, 5]
    assert prediction.at(5) == 30
