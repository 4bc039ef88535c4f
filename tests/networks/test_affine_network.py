"""The affine network: identity at the start, row-major W, one volume size."""

import numpy as np
import pytest
import torch
from torch import nn

from regcascade.networks.affine import AffineNetwork

SIZE = (16, 20, 17)


class Ones(nn.Module):
    """Stands for the encoder, so that the last layers give the sums of their weights."""

    def forward(self, pair):
        return [torch.ones(pair.shape[0], 512, 1, 1, 1)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return AffineNetwork(SIZE)


def images(size=SIZE, batch=2):
    return torch.rand(2, batch, 1, *size, generator=torch.Generator().manual_seed(0))


def test_it_starts_at_the_identity(network):
    with torch.no_grad():
        affine = network(*images())
    assert affine.matrix.shape == (2, 3, 3) and affine.offset.shape == (2, 3)
    assert 0 < affine.displacement().abs().max() < 0.1


def test_convention_w_is_row_major(monkeypatch):
    network = AffineNetwork(SIZE)
    monkeypatch.setattr(network, "encoder", Ones())
    with torch.no_grad():
        network.matrix.weight.zero_()
        network.matrix.weight[1] = 0.5 / 512  # row 0, column 1
        network.offset.weight.zero_()
        network.offset.weight[2] = 3 / 512
        affine = network(*images())
    expected = torch.eye(3)
    expected[0, 1] = 0.5
    torch.testing.assert_close(affine.matrix, expected.expand(2, 3, 3))
    torch.testing.assert_close(affine.offset, torch.tensor([0.0, 0.0, 3.0]).expand(2, 3))
    y = np.arange(20) - 9.5
    flow = affine.displacement()
    np.testing.assert_allclose(flow[1, 0, 5, :, 7], 0.5 * y, atol=1e-5)
    np.testing.assert_allclose(flow[1, 2], 3, atol=1e-5)


def test_a_batch_gives_what_its_items_give_one_by_one(network):
    moving, fixed = images()
    with torch.no_grad():
        whole = network(moving, fixed)
        for k in range(2):
            alone = network(moving[k : k + 1], fixed[k : k + 1])
            identity = torch.eye(3)
            torch.testing.assert_close(
                whole.matrix[k : k + 1] - identity, alone.matrix - identity, rtol=1e-2, atol=1e-6
            )
            torch.testing.assert_close(whole.offset[k : k + 1], alone.offset, rtol=1e-3, atol=1e-6)


def test_it_belongs_to_its_size(network):
    with pytest.raises(ValueError, match=r"built for volumes of \(16, 20, 17\) voxels and got \(16, 20, 18\)"):
        network(*images((16, 20, 18)))


def test_its_last_layers_span_the_last_map():
    with torch.device("meta"):
        network = AffineNetwork((128, 65, 64))
    assert network.matrix.weight.shape == (9, 512, 2, 2, 1)
    assert network.offset.weight.shape == (3, 512, 2, 2, 1)


def test_the_paper_s_start_is_an_option():
    with pytest.raises(ValueError, match=r"affine.head_init=zero is not valid. Known: near_zero, paper"):
        AffineNetwork(SIZE, head_init="zero")
    with torch.device("meta"):
        AffineNetwork(SIZE, head_init="paper")
