"""The pyramid: its correlation against a loop, its flows across levels, and that it finds a shift."""

import numpy as np
import pytest
import torch

from regcascade.geometry.warp import resize_flow
from regcascade.networks import build_net
from regcascade.networks.pyramid import Pyramid, local_correlation


def test_local_correlation_agrees_with_a_loop():
    torch.manual_seed(0)
    fixed, moving = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64), torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    found = local_correlation(fixed, moving, 1)
    assert found.shape == (2, 27, 4, 5, 6)
    f, m = fixed.numpy(), np.pad(moving.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)])
    for n, p in ((0, (0, 0, 0)), (1, (3, 2, 5)), (0, (2, 4, 1))):
        for k, offset in enumerate(np.ndindex(3, 3, 3)):
            a, b = f[(n, slice(None), *p)], m[(n, slice(None), *(np.array(p) + offset))]
            length = np.linalg.norm(a) * np.linalg.norm(b)
            expected = a @ b / length if length else 0.0
            assert found[(n, k, *p)].item() == pytest.approx(expected, abs=1e-12)


def test_what_the_levels_add_is_the_flow_at_full_resolution_alone():
    torch.manual_seed(0)
    alone, several = build_net("pyramid"), build_net("pyramid", levels=(0, 1, 2))
    for head in several.heads.values():
        torch.nn.init.normal_(head.weight, std=0.05)
    alone.load_state_dict(several.state_dict())
    moving, fixed = torch.rand(2, 1, 1, 24, 16, 32)
    with torch.no_grad():
        flows = several(moving, fixed)
        whole = alone(moving, fixed)[0]
    half = flows[1] + resize_flow(flows[2], (12, 8, 16), 1)
    total = flows[0] + resize_flow(half, (24, 16, 32), 1)
    torch.testing.assert_close(whole, total)
    assert flows[2].abs().mean() > 0.01


def test_without_a_radius_it_correlates_with_the_voxel_itself():
    fixed = torch.randn(1, 4, 3, 3, 3)
    torch.testing.assert_close(local_correlation(fixed, 2 * fixed, 0), torch.ones(1, 1, 3, 3, 3))


@pytest.mark.parametrize("options", [{"width": 0}, {"radius": -1}])
def test_values_that_are_not_valid_are_refused(options):
    with pytest.raises(ValueError, match="not valid"):
        Pyramid(**options)
