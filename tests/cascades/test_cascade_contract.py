"""What every registered network keeps in every registered cascade."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch

from regcascade import build, cascades
from regcascade import networks as nets
from regcascade.cascades import Cascade
from regcascade.geometry.warp import compose, warp
from regcascade.registration import Registration
from regcascade.types import level_size

SIZE = (16, 16, 16)
ODD = (17, 22, 19)
COMBINATIONS = [
    (net, strategy)
    for net, strategy in product(nets.names(), cascades.names())
    if set(cascades.CASCADES.get(strategy).levels) <= set(nets.NETS.get(net).scales)
]


def images(size=SIZE, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, batch, 1, *size, generator=generator)


@dataclass
class Made:
    """A cascade of two stages of one network, and what it did; the heavy networks run as seldom as can be.

    Attributes:
        spec: the names of the network and the strategy.
        untrained: what it returned for `images()` as it came.
        cascade: the same with heads that make flows of about a voxel, and enlargements that have learnt something.
        registration: what it returns then for `images()`, the chain applied twice.
        seen: which network ran at each step, and its inputs.
    """

    spec: tuple[str, str]
    untrained: Registration
    cascade: Cascade
    registration: Registration
    seen: list[tuple]


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def made(request):
    torch.manual_seed(0)
    cascade = build(*request.param, n=2).eval()
    seen = []
    with torch.no_grad():
        untrained = cascade(*images())
        for net in cascade.nets:
            for level, flow in net(*images()).items():
                net.heads[str(level)].weight.mul_(1.5 / flow.abs().max())
        for weight in getattr(cascade, "enlarge", torch.nn.Module()).parameters():
            weight.add_(0.01 * torch.randn_like(weight))
        handles = [
            net.register_forward_pre_hook(lambda _, args, k=k: seen.append((k, *args)))
            for k, net in enumerate(cascade.nets)
        ]
        registration = cascade(*images(), r=2, repeat="chain")
    for handle in handles:
        handle.remove()
    return Made(request.param, untrained, cascade, registration, seen)


def test_untrained_it_is_near_the_identity(made):
    registration = made.untrained
    assert registration.flow.shape == (1, 3, *SIZE)
    assert registration.flow.dtype == registration.moved.dtype == torch.float32
    assert 0 < registration.flow.abs().max() < 0.1
    assert registration.affine is None
    assert len(registration.stages) == 2
    for stage in registration.stages:
        assert set(stage.totals) == set(made.cascade.levels)
        for level, total in stage.totals.items():
            assert total.shape == (1, 3, *level_size(SIZE, level))


def test_the_total_is_the_composition_and_one_warp_of_it_the_moved_image(made):
    registration, (moving, _) = made.registration, images()
    assert len(registration.stages) == len(registration.deformable_stages) == 4
    total = torch.zeros(1, 3, *SIZE)
    for stage in registration.stages:
        assert stage.flow.abs().max() > 0.1
        total = compose(total, stage.flow)
        torch.testing.assert_close(stage.total, total)
        torch.testing.assert_close(stage.moved, warp(moving, total))
    assert torch.equal(registration.moving, moving)
    assert registration.flow is registration.stages[-1].total
    assert registration.moved is registration.stages[-1].moved
    assert registration.supervised[-1] is registration.stages[-1]


def test_each_stage_sees_what_the_ones_before_left(made):
    moving, fixed = images()
    assert [k for k, *_ in made.seen] == [0, 1, 0, 1]
    before = [moving, *(stage.moved for stage in made.registration.stages[:-1])]
    for (_, image, target), expected in zip(made.seen, before, strict=True):
        assert torch.equal(image, expected)
        assert torch.equal(target, fixed)


def test_repeats_apply_each_stage_in_place_or_the_chain(made):
    cascade = made.cascade
    assert cascade.order(1, "stage") == cascade.order(1, "chain") == [0, 1]
    assert cascade.order(3, "stage") == [0, 0, 0, 1, 1, 1]
    assert cascade.order(3, "chain") == [0, 1, 0, 1, 0, 1]


def test_a_batch_gives_what_its_items_give_one_by_one(made):
    other = images(seed=3)
    with torch.no_grad():
        whole = made.cascade(*torch.cat([images(), other], dim=1))
        alone = [made.registration.stages[1], made.cascade(*other).stages[1]]
    for k in range(2):
        torch.testing.assert_close(whole.flow[k : k + 1], alone[k].total, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(whole.moved[k : k + 1], alone[k].moved, rtol=1e-3, atol=1e-3)


def test_gradients_reach_every_parameter_that_learns(made):
    cascade = made.cascade.train()
    expected = {key for key, _ in cascade.named_parameters()}
    reached = set()
    for done in (0.9, 0.0):  # a strategy with phases trains each stage in its own
        if reached == expected:
            break
        cascade.on_progress(done)
        registration = cascade(*images())
        sum(stage.moved.square().sum() for stage in registration.supervised).backward()
        for key, parameter in cascade.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), key
                if parameter.grad.any():
                    reached.add(key)
        cascade.zero_grad()
    cascade.on_progress(1.0)
    cascade.eval()
    assert reached == expected


def test_weights_survive_the_state_dict(made):
    with torch.device("meta"):
        fresh = build(*made.spec, n=2)
    fresh.load_state_dict(made.cascade.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(fresh(*images()).flow, made.registration.stages[1].total)


@pytest.mark.parametrize("strategy", cascades.names())
@pytest.mark.parametrize("size", [ODD, (24, 16, 33)])
def test_any_size_goes_through_any_strategy(strategy, size):
    model = build("voxelmorph", strategy, n=2)
    with torch.no_grad():
        registration = model(*images(size))
    assert registration.flow.shape == (1, 3, *size)
    assert registration.moved.shape == (1, 1, *size)
    assert 0 < registration.flow.abs().max() < 0.1


@pytest.mark.parametrize("strategy", cascades.names())
def test_autocast_gives_float32_flows_close_to_full_precision(strategy):
    torch.manual_seed(0)
    model = build({"name": "voxelmorph", "head_init": "paper"}, strategy, affine="learned", n=1, size=SIZE)
    with torch.no_grad():
        plain = model(*images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(*images())
    for a, b in zip(plain.stages, mixed.stages, strict=True):
        for level, total in a.totals.items():
            assert b.totals[level].dtype == torch.float32
            assert (b.totals[level] - total).abs().max() < 0.05 * total.abs().max() + 1e-4
        assert b.moved.dtype == torch.float32


@pytest.mark.parametrize("strategy", cascades.names())
def test_the_flow_multiplier_is_one_over_n(strategy):
    with torch.device("meta"):
        for n in (1, 2, 3):
            model = build("vtn", strategy, n=n)
            assert [net.flow_multiplier for net in model.nets] == [pytest.approx(1 / n)] * n


def test_nothing_is_kept_between_calls():
    torch.manual_seed(0)
    model = build("voxelmorph", "mcr", n=2)
    with torch.no_grad():
        first = model(*images()).flow
        model(*images(ODD, batch=2))
        np.testing.assert_array_equal(model(*images()).flow, first)
