"""DR-Net: its modules one by one."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from regcascade.networks import build_net
from regcascade.networks.drnet import SCAM, ConvRes, IncepBlock

SWITCHES = ["incep", "pim", "scam"]


@pytest.mark.parametrize("off", [["incep"], ["pim"], ["scam"], SWITCHES])
def test_modules_switch_off(off):
    net = build_net({"name": "drnet"} | dict.fromkeys(off, False))
    kinds = [type(module).__name__ for module in net.modules()]
    assert ("IncepBlock" in kinds) == ("incep" not in off)
    assert ("SCAM" in kinds) == ("scam" not in off)
    assert (len(net.pyramid) > 0) == ("pim" not in off)
    with torch.no_grad():
        flow = net(*torch.rand(2, 1, 1, 16, 16, 16))[0]
    assert flow.shape == (1, 3, 16, 16, 16)
    assert 0 < flow.abs().max() < 0.1


def test_the_parts_of_the_paper_are_there():
    with torch.device("meta"):
        net = build_net("drnet")
    assert [type(block) for block in net.blocks] == [IncepBlock] * 5
    assert [type(block) for block in net.down] == [ConvRes] * 5
    assert [type(block) for block in net.decoder] == [ConvRes] * 4
    assert [type(block) for block in net.attention] == [SCAM] * 4
    assert [len(path) for path in net.paths] == [1, 2, 3, 4]  # from the coarsest to the finest
    assert len(net.pyramid) == 3 and len(net.up) == 4


def test_the_reading_of_channel_attention_is_an_option():
    with torch.device("meta"):
        assert {block.channel_attention for block in build_net("drnet").attention} == {"equation"}
        net = build_net({"name": "drnet", "channel_attention": "text"})
        assert {block.channel_attention for block in net.attention} == {"text"}
        with pytest.raises(ValueError, match=r"model\.channel_attention=sum is not valid\. Known: equation, text"):
            build_net({"name": "drnet", "channel_attention": "sum"})


def convolution(image, layer):
    """A SAME convolution of one item with zeros outside, in float64."""
    weight, bias = (
        value.detach().double().numpy() if value is not None else None for value in (layer.weight, layer.bias)
    )
    result = np.array(
        [sum(correlate(c, k, mode="constant") for c, k in zip(image, out, strict=True)) for out in weight]
    )
    return result if bias is None else result + bias[:, None, None, None]


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def random_parameters(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.double()


def agrees(module, channels, reference):
    x = torch.randn(2, channels, 5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    result = module(x).detach().numpy()
    for item in range(2):
        np.testing.assert_allclose(result[item], reference(x[item].numpy()), atol=1e-9)


@pytest.mark.parametrize("reading", ["equation", "text"])
def test_scam_agrees_with_equations_1_to_3_and_with_the_text_s_reading_of_the_first(reading):
    module = random_parameters(SCAM(32, reading))
    squeeze, _, widen = module.mlp
    first, second, third = (layer for layer in module.spatial if hasattr(layer, "weight"))

    def mlp(vector):
        return convolution(relu(convolution(vector[:, None, None, None], squeeze)), widen)

    def reference(x):
        mean, peak = mlp(x.mean((1, 2, 3))), mlp(x.max((1, 2, 3)))
        channels = sigmoid(mean) + sigmoid(peak) if reading == "equation" else sigmoid(mean + peak)
        y = np.stack([x.mean(0), x.max(0)])
        spatial = sigmoid(convolution(relu(convolution(relu(convolution(y, first)), second)), third))
        return channels * x + spatial * x

    assert squeeze.weight.shape[0] == 2
    agrees(module, 32, reference)


def test_conv_res_carries_the_first_output_to_the_sum():
    module = random_parameters(ConvRes(3, 4))

    def reference(x):
        y = leaky(convolution(x, module.first[0]))
        return leaky(convolution(y, module.second) + convolution(y, module.branch))

    agrees(module, 3, reference)


def test_incep_block_concatenates_three_receptive_fields():
    module = random_parameters(IncepBlock(3, 8))

    def reference(x):
        a = leaky(convolution(x, module.first[0]))
        b = leaky(convolution(a, module.second[0]))
        c = leaky(convolution(b, module.third[0]))
        return leaky(np.concatenate([a, b, c]) + convolution(x, module.residual))

    agrees(module, 3, reference)
