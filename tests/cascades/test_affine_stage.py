"""The affine stage in front of every registered cascade."""

import pytest
import torch

from regcascade import build, cascades
from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import resize_flow, warp

SIZE = (16, 16, 16)
LONG = (16, 18, 16)


def images(size=SIZE, batch=1):
    return torch.rand(2, batch, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=cascades.names())
def far(request):
    """A cascade whose affine stage is far from the identity."""
    torch.manual_seed(0)
    model = build("voxelmorph", request.param, n=1, affine="learned", size=LONG)
    with torch.no_grad():
        start = model.affine(*images(LONG))
        model.affine.matrix.weight.mul_(0.06 / (start.matrix - torch.eye(3)).abs().max())
        model.affine.offset.weight.mul_(1 / start.offset.abs().max())
        flow = model.nets[0](*images(LONG))[0]
        for head in model.nets[0].heads.values():
            head.weight.mul_(1 / flow.abs().max())
    return model


class TestAffine:
    def test_comes_first_and_is_followed_exactly(self, far):
        model = far.eval()
        moving, fixed = images(LONG)
        with torch.no_grad():
            registration = model(moving, fixed)
        first, second = registration.stages
        affine = first.affine
        assert registration.affine is affine and registration.deformable_stages == (second,)
        assert isinstance(affine, Affine) and affine.size == LONG
        torch.testing.assert_close(first.total, affine.displacement())
        torch.testing.assert_close(first.moved, warp(moving, first.total))
        expected = affine.followed_by(second.flow)
        torch.testing.assert_close(second.total, expected)
        torch.testing.assert_close(second.moved, warp(moving, expected))
        for level, total in second.totals.items():
            assert set(first.totals) == set(second.totals)
            # Near the border an enlarged field cannot be linear.
            inner = (..., *(slice(4, side - 4) for side in LONG))
            whole = resize_flow(first.totals[level], LONG, level)
            torch.testing.assert_close(whole[inner], first.total[inner], rtol=1e-3, atol=1e-4)
            assert total.shape == first.totals[level].shape

    def test_learns_when_learned(self, far):
        model = far.train()
        model.on_progress(0.0)
        registration = model(*images(LONG))
        registration.moved.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.affine.parameters())
        model.zero_grad()

    @pytest.mark.parametrize("strategy", cascades.names())
    def test_gets_no_gradient_when_frozen(self, strategy):
        model = build("voxelmorph", strategy, n=1, affine="frozen", size=SIZE)
        model.train()
        registration = model(*images())
        registration.moved.square().sum().backward()
        assert not registration.affine.matrix.requires_grad
        assert all(p.grad is None and not p.requires_grad for p in model.affine.parameters())
        assert any(p.grad is not None for p in model.nets.parameters())

    @pytest.mark.parametrize("strategy", cascades.names())
    def test_alone_is_a_cascade_of_no_stage(self, strategy):
        model = build("vtn", strategy, n=0, affine="learned", size=LONG)
        assert sum(p.numel() for p in model.nets.parameters()) == 0
        model.on_progress(0.5)
        registration = model(*images(LONG, batch=2), r=2)
        assert len(registration.stages) == 1 and registration.deformable_stages == ()
        assert torch.equal(registration.flow, registration.affine.displacement())
        assert registration.flow.abs().max() < 0.1
        registration.moved.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("strategy", cascades.names())
@pytest.mark.parametrize("n", [0, 1])
def test_a_precomputed_map_comes_first(strategy, n):
    model = build("voxelmorph", strategy, n=n, affine="precomputed").eval()
    moving, fixed = images(LONG, batch=2)
    alignment = torch.eye(4).repeat(2, 1, 1)
    alignment[1, 0, 3], alignment[1, 1, 1] = 2.0, 1.1
    registration = model(moving, fixed, alignment=alignment)
    first = registration.stages[0]
    torch.testing.assert_close(first.moved[0], moving[0])
    torch.testing.assert_close(first.moved[1, 0, :14, 0], moving[1, 0, 2:, 0])
    torch.testing.assert_close(first.total[1, 1, 0, :, 0], 0.1 * torch.arange(18.0), atol=1e-5, rtol=0)
    assert len(registration.stages) == n + 1 and registration.affine.frozen
    with pytest.raises(ValueError, match="regcascade prepare --align"):
        model(moving, fixed)
