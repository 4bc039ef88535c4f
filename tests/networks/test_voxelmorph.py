"""VoxelMorph: its options."""

import pytest
import torch

from regcascade.networks import build_net


@pytest.mark.parametrize("options", [{"width_multiplier": 2}, {"convolutions": 2}, {"passes": 2}])
def test_table_4_variants_run(options):
    net = build_net({"name": "voxelmorph", **options}, levels=(0, 1, 2))
    flows = net(*torch.rand(2, 1, 1, 17, 16, 16))
    assert [flow.shape[2:] for flow in flows.values()] == [(17, 16, 16), (9, 8, 8), (5, 4, 4)]
    sum(flow.square().sum() for flow in flows.values()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("option", ["width_multiplier", "convolutions", "passes"])
def test_counts_below_one_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}=0"):
        build_net({"name": "voxelmorph", option: 0})


def test_the_slope_reaches_every_activation():
    with torch.device("meta"):
        net = build_net({"name": "voxelmorph", "negative_slope": 0.2, "convolutions": 2, "passes": 2})
    slopes = [module.negative_slope for module in net.modules() if isinstance(module, torch.nn.LeakyReLU)]
    assert len(slopes) == 44 and set(slopes) == {0.2}
