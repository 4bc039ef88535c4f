"""`cascade.integrate`: every network in every strategy, as a velocity."""

from itertools import product

import pytest
import torch

from regcascade import build, cascades
from regcascade import networks as nets
from regcascade.geometry.warp import compose, integrate, warp

SIZE = (17, 16, 19)
# Every network in the two strategies that differ, and one network in every strategy.
COMBINATIONS = [
    (net, strategy)
    for net, strategy in product(nets.names(), cascades.names())
    if set(cascades.CASCADES.get(strategy).levels) <= set(nets.NETS.get(net).scales)
    and (strategy in ("cr", "mcr") or net == "voxelmorph")
]


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 1, 1, *SIZE, generator=generator)


def lively(cascade):
    """Heads that make flows of about two voxels."""
    with torch.no_grad():
        for net in cascade.nets:
            for level, flow in net(*images()).items():
                net.heads[str(level)].weight.mul_(2 / flow.abs().max())
    return cascade


@pytest.mark.parametrize("spec", COMBINATIONS, ids="-".join)
def test_a_stage_moves_by_what_its_output_integrates_to(spec):
    torch.manual_seed(0)
    net, strategy = spec
    cascade = build(net, {"name": strategy, "integrate": 4}, n=1).eval()
    with torch.no_grad():
        assert 0 < cascade(*images()).flow.abs().max() < 0.1  # untrained
        moving, fixed = images()
        (stage,) = lively(cascade)(moving, fixed).stages
        cascade.integrate = 0
        (plain,) = cascade(moving, fixed).stages
    assert plain.velocity is None and plain.inverse_flow is None
    for level, total in stage.totals.items():
        torch.testing.assert_close(total, integrate(plain.totals[level], 4))
    assert (stage.flow - plain.flow).abs().max() > 0.01
    assert torch.equal(stage.moved, warp(moving, stage.flow))
    torch.testing.assert_close(stage.inverse_flow, integrate(-plain.flow, 4))


@pytest.mark.parametrize("strategy", ["cr", "mcr"])
@pytest.mark.parametrize("share_weights", [False, True])
def test_repeats_and_shared_weights_integrate_every_stage(strategy, share_weights):
    torch.manual_seed(0)
    spec = {"name": strategy, "integrate": 5, "share_weights": share_weights}
    cascade = lively(build("voxelmorph", spec, n=2, affine="learned", size=SIZE).eval())
    with torch.no_grad():
        registration = cascade(*images(), r=2)
    assert len(registration.stages) == 5
    total = registration.stages[0].total
    for stage in registration.deformable_stages:
        torch.testing.assert_close(stage.flow, integrate(stage.velocity, 5))
        total = compose(total, stage.flow)
    torch.testing.assert_close(registration.flow, total, atol=1e-3, rtol=1e-3)
    assert registration.inverse_flow.shape == registration.flow.shape


def test_gradients_reach_every_parameter_through_the_integration():
    cascade = build("voxelmorph", {"name": "mcr", "integrate": 3}, n=2)
    cascade(*images()).moved.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in cascade.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cr", "integrate": -1}, r"cascade\.integrate=-1: it counts squarings"),
        ({"name": "cr", "integrate": 2.5}, "integrate=2.5 is not of the right type; it wants int"),
        ({"name": "mcr", "integrate": 7, "accumulate": "compose"}, "leave one out"),
    ],
)
def test_options_that_cannot_be_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        build("voxelmorph", options, n=1)
