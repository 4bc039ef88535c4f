"""The adapters of MONAI's networks against MONAI itself: the same flow, in the same units and axes."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from monai.networks.blocks import DVF2DDF
from monai.networks.nets.regunet import LocalNet
from monai.networks.nets.voxelmorph import VoxelMorph, VoxelMorphUNet

from regcascade import build
from regcascade.geometry.warp import integrate, warp
from regcascade.networks import build_net
from regcascade.networks.monai_voxelmorph import FINAL_WIDTHS, WIDTHS

CONF = Path(__file__).parents[2] / "conf"

SIZE = (16, 24, 32)  # which neither network pads
INSIDE = (..., slice(4, -4), slice(4, -4), slice(4, -4))


@pytest.fixture
def pair():
    return torch.rand(2, 1, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def adapted(theirs: VoxelMorph, **options):
    """Our adapter with the weights of MONAI's network."""
    ours = build_net({"name": "monai_voxelmorph", **options}).eval()
    weights = {key.removeprefix("backbone."): value for key, value in theirs.state_dict().items()}
    last = "net.1.final_conv_out.conv."
    ours.heads["0"].load_state_dict({key.removeprefix(last): weights.pop(key) for key in list(weights) if last in key})
    ours.unet.load_state_dict(weights)
    return ours


def test_voxelmorph_gives_the_flow_and_the_image_of_monai(pair):
    torch.manual_seed(0)
    theirs = VoxelMorph(VoxelMorphUNet(3, 2, WIDTHS[-1], WIDTHS, FINAL_WIDTHS), integration_steps=0).eval()
    with torch.no_grad():
        head = theirs.backbone.net[1].final_conv_out.conv
        head.weight.mul_(30)
        head.bias.copy_(torch.tensor([1.6, -0.7, 0.4]))  # another displacement along each axis
        moved, flow = theirs(*pair)
        ours = adapted(theirs)(*pair)[0]
    assert flow.std() > 0.05
    torch.testing.assert_close(ours, flow)
    # MONAI takes what is outside as 0, and we continue the border.
    torch.testing.assert_close(warp(pair[0], ours)[INSIDE], moved[INSIDE], rtol=1e-4, atol=1e-4)


def test_the_default_of_monai_is_the_network_adapted():
    theirs, ours = VoxelMorph(), build_net("monai_voxelmorph")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 244_323


def test_integration_is_that_of_monai_away_from_the_border(smooth_flow):
    velocity = smooth_flow(SIZE, 3.0, 1).float()
    ours, theirs = integrate(velocity, 7), DVF2DDF(num_steps=7)(velocity)
    assert (ours - velocity).abs().max() > 0.1
    torch.testing.assert_close(ours[INSIDE], theirs[INSIDE], rtol=1e-3, atol=1e-3)


def test_steps_integrate_what_the_network_predicts():
    plain, integrated = (build_net({"name": "monai_voxelmorph", "integration_steps": steps}) for steps in (0, 4))
    torch.nn.init.normal_(plain.heads["0"].weight, std=1.0)
    integrated.load_state_dict(plain.state_dict())
    moving, fixed = torch.rand(2, 1, 1, *SIZE)
    velocity = plain(moving, fixed)[0]
    torch.testing.assert_close(integrated(moving, fixed)[0], integrate(velocity, 4))
    assert (integrated(moving, fixed)[0] - velocity).abs().max() > 0.01


@pytest.mark.parametrize("steps", [-1, 17])
def test_steps_of_integration_have_bounds(steps):
    with pytest.raises(ValueError, match=f"integration_steps={steps}"):
        build_net({"name": "monai_voxelmorph", "integration_steps": steps})


def test_localnet_gives_the_flow_of_monai(pair):
    """MONAI averages the flows of its levels, enlarged; with the coarse one at 0 that is half of the fine one.

    In training, where it normalises by the batch, which is one pair here.
    """
    torch.manual_seed(0)
    theirs, ours = LocalNet(3, 2, 4, extract_levels=(0, 3)).train(), build_net({"name": "monai_localnet", "width": 4})
    with torch.no_grad():
        fine, coarse = (block.conv for block in theirs.output_block.layers)
        coarse.weight.zero_()
        weights = theirs.state_dict()
        ours.body.load_state_dict({key: weights[key] for key in ours.body.state_dict()})
        ours.heads["0"].weight.copy_(fine.weight)
        expected = 2 * theirs(torch.cat([*pair], dim=1))
        torch.testing.assert_close(ours(*pair)[0], expected)
    assert expected.std() > 0.01


def test_localnet_of_one_map_is_refused():
    with pytest.raises(ValueError, match="width=1"):
        build_net({"name": "monai_localnet", "width": 1})


def test_voxelmorph_brings_the_cascade_it_can_serve_and_says_so_of_another():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config, named = (compose("train", ["model=monai_voxelmorph", *more]) for more in ([], ["cascade=mcr"]))
        assert (config.cascade.name, config.loss.alpha) == ("cr", 0)
        assert named.cascade.name == "mcr"
    with pytest.raises(ValueError, match=r"MonaiVoxelMorph predicts flows at the levels .* choose cascade=cr"):
        build("monai_voxelmorph", "mcr", n=2)
