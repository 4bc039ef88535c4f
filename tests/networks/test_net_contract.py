"""What every registered network keeps."""

import inspect
import re

import pytest
import torch

from regcascade.networks import NETS, build_net, names
from regcascade.types import level_size

ODD = (17, 22, 19)


@pytest.fixture(scope="module", params=names())
def net(request):
    """One of each, with every level it has."""
    torch.manual_seed(0)
    return build_net(request.param, levels=NETS.get(request.param).scales).eval()


@pytest.fixture(params=names())
def name(request):
    return request.param


def pair(size, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, batch, 1, *size, generator=generator)


def random_heads(net, seed=1):
    """Draws the heads as large as any layer, so that flows are far from zero."""
    torch.manual_seed(seed)
    for head in net.heads.values():
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.02)


@pytest.fixture
def lively(net):
    before = {key: value.clone() for key, value in net.heads.state_dict().items()}
    random_heads(net)
    yield net
    net.heads.load_state_dict(before)


@pytest.mark.parametrize("size", [ODD, (24, 16, 33)])
def test_flows_have_the_sizes_of_their_levels_and_start_near_zero(net, size):
    with torch.no_grad():
        flows = net(*pair(size))
    assert set(flows) == set(net.scales)
    for level, flow in flows.items():
        assert flow.shape == (1, 3, *level_size(size, level))
        assert flow.dtype == torch.float32
        assert 0 < flow.abs().max() < 0.1


def test_a_batch_gives_what_its_items_give_one_by_one(lively):
    moving, fixed = pair((16, 16, 18), batch=2)
    with torch.no_grad():
        whole = lively(moving, fixed)
        for k in range(2):
            alone = lively(moving[k : k + 1], fixed[k : k + 1])
            for level, flow in whole.items():
                assert flow.std() > 0.01
                torch.testing.assert_close(flow[k : k + 1], alone[level], rtol=1e-3, atol=1e-4)


def test_gradients_reach_every_parameter(lively):
    lively.zero_grad()
    flows = lively(*pair((16, 16, 16)))
    sum(flow.square().sum() for flow in flows.values()).backward()
    for key, parameter in lively.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key
    lively.zero_grad()


def test_the_two_inputs_are_told_apart(lively):
    moving, fixed = pair((16, 16, 16))
    with torch.no_grad():
        forth, back = lively(moving, fixed)[0], lively(fixed, moving)[0]
    assert (forth - back).abs().mean() > 1e-3


def test_moving_first_is_fixed_first_with_the_inputs_swapped(lively):
    if "input_order" not in inspect.signature(type(lively)).parameters:
        pytest.skip("it does not concatenate the scans, so it has no order of them")
    moving, fixed = pair((16, 16, 16))
    with torch.no_grad():
        expected = lively(fixed, moving)[0]
        lively.input_order = "moving_first"
        try:
            swapped = lively(moving, fixed)[0]
        finally:
            lively.input_order = "fixed_first"
    assert torch.equal(swapped, expected)


def test_the_flow_multiplier_scales_every_flow(net):
    # Small flows: a pyramid's own warps make it linear only to first order.
    images = pair((16, 16, 16))
    with torch.no_grad():
        whole = net(*images)
        net.flow_multiplier = 0.25
        try:
            quarter = net(*images)
        finally:
            net.flow_multiplier = 1.0
    for level, flow in whole.items():
        torch.testing.assert_close(quarter[level], flow / 4, rtol=1e-2, atol=1e-2 * float(flow.abs().max()))


def test_padding_comes_at_the_end_with_edge_values(lively):
    """A network that pads gives what it gives for images that are continued already."""
    size = (17, 16, 16)
    moving, fixed = pair(size)
    padding = [p for side in reversed(size) for p in (0, -side % lively.multiple)]
    continued = [torch.nn.functional.pad(image, padding, mode="replicate") for image in (moving, fixed)]
    with torch.no_grad():
        flow, large = lively(moving, fixed)[0], lively(*continued)[0]
    torch.testing.assert_close(large[:, :, :17], flow, rtol=1e-4, atol=1e-5)


def test_autocast_gives_float32_flows_close_to_full_precision(lively):
    # What a network computes varies with sixteen bits; how much it may is what is bounded here.
    images = pair((16, 16, 16))
    with torch.no_grad():
        plain = lively(*images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = lively(*images)
    for level, flow in plain.items():
        assert mixed[level].dtype == torch.float32
        assert (mixed[level] - flow).abs().max() < 0.1 * flow.abs().max()


def test_nothing_is_built_for_levels_that_are_not_asked_for(name):
    net = build_net(name)
    random_heads(net)
    net(*pair((16, 16, 16)))[0].square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), key


def test_levels_it_does_not_have_are_refused(name):
    scales = re.escape(str(NETS.get(name).scales))
    with pytest.raises(ValueError, match=rf"flows at the levels {scales}, and \(0, 7\) is asked"):
        build_net(name, levels=(0, 7))
    with pytest.raises(ValueError, match=r"\(1, 2\) is asked"):
        build_net(name, levels=(1, 2))


@pytest.mark.parametrize("option", ["input_order", "head_init"])
def test_options_with_a_wrong_value_are_refused(name, option):
    _skip_without(name, option)
    with pytest.raises(ValueError, match=rf"{option}=sideways is not valid. Known: "):
        build_net({"name": name, option: "sideways"})


def test_unknown_networks_and_options_are_refused():
    with pytest.raises(ValueError, match=r"Unknown network 'voxelmorf'. .*voxelmorph.*'voxelmorph'\?"):
        build_net("voxelmorf")
    with pytest.raises(ValueError, match=r"network 'vtn' has no option 'depth'"):
        build_net({"name": "vtn", "depth": 3})


def test_the_paper_s_heads_are_an_option(name):
    _skip_without(name, "head_init")
    torch.manual_seed(0)
    near_zero = build_net({"name": name, "head_init": "near_zero"}).heads["0"]
    paper = build_net({"name": name, "head_init": "paper"}).heads["0"]
    assert near_zero.weight.std().item() == pytest.approx(1e-5, rel=0.2)
    assert paper.weight.std() > 1e-3


def _skip_without(name: str, option: str) -> None:
    if option not in inspect.signature(NETS.get(name)).parameters:
        pytest.skip(f"{name} leaves {option} at its default")
