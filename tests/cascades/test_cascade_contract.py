"""What every registered network keeps in every registered cascade."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from torch.func import functional_call

from regcascade import build, cascades, nets
from regcascade.cascades import Cascade
from regcascade.registration import Affine, Registration
from regcascade.spatial import compose, resize_flow, warp
from regcascade.types import level_size

SIZE = (16, 16, 16)
LONG = (16, 18, 16)
ODD = (17, 22, 19)
COMBINATIONS = list(product(nets.names(), cascades.names()))


def images(size=SIZE, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, batch, 1, *size, generator=generator)


@dataclass
class Made:
    """A cascade of two stages of one network, and what it did; the heavy networks run as seldom as can be.

    Attributes:
        spec: the names of the network and the strategy.
        untrained: what it returned as it came, for a batch of two.
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
        untrained = cascade(*images(batch=2))
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
    assert registration.flow.shape == (2, 3, *SIZE)
    assert registration.flow.dtype == registration.moved.dtype == torch.float32
    assert 0 < registration.flow.abs().max() < 0.1
    assert registration.affine is None
    assert len(registration.stages) == 2
    for stage in registration.stages:
        assert set(stage.totals) == set(made.cascade.levels)
        for level, total in stage.totals.items():
            assert total.shape == (2, 3, *level_size(SIZE, level))


def test_the_total_is_the_composition_and_one_warp_of_it_the_moved_image(made):
    registration, (moving, _) = made.registration, images()
    assert len(registration.stages) == len(registration.deformable_stages) == 4
    total = torch.zeros(1, 3, *SIZE)
    for stage in registration.stages:
        assert stage.flow.abs().max() > 0.2
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


class TestSharedWeights:
    @pytest.fixture(params=[name for name in cascades.names() if name != "one_by_one"])
    def strategy(self, request):
        return request.param

    def test_there_is_one_set(self, strategy):
        with torch.device("meta"):
            alone, three = build("voxelmorph", strategy, n=1), build("voxelmorph", strategy, n=3)
            shared = build("voxelmorph", {"name": strategy, "share_weights": True}, n=3)

        def count(model):
            return sum(p.numel() for p in model.parameters())

        assert count(three) == 3 * count(alone)
        assert count(shared) == count(alone)
        assert shared.order(1, "stage") == [0, 0, 0]
        assert shared.nets[0].flow_multiplier == pytest.approx(1 / 3)

    def test_it_computes_what_equal_stages_compute(self, strategy):
        torch.manual_seed(0)
        shared = build("voxelmorph", {"name": strategy, "share_weights": True}, n=2)
        with torch.no_grad():
            for head in shared.nets[0].heads.values():
                head.weight.mul_(2000)
        plain = build("voxelmorph", strategy, n=2)
        state = {
            part + f".{k}." + rest: value
            for key, value in shared.state_dict().items()
            for part, _, rest in [key.split(".", 2)]
            for k in range(2)
        }
        with torch.no_grad():
            expected = shared(*images()).flow
            assert expected.abs().max() > 0.05
            torch.testing.assert_close(functional_call(plain, state, tuple(images())).flow, expected)

    def test_different_networks_cannot_share(self, strategy):
        with pytest.raises(ValueError, match=r"share_weights=true needs the same network"):
            build(cascade={"name": strategy, "share_weights": True, "stages": ["voxelmorph", "vtn"]})


@pytest.mark.parametrize("strategy", cascades.names())
def test_stages_may_be_different_networks(strategy):
    narrow = {"name": "voxelmorph", "convolutions": 2}
    with torch.device("meta"):
        model = build("drnet", {"name": strategy, "stages": ["vtn", narrow, "voxelmorph"]})
    assert model.n == 3
    assert [type(net).__name__ for net in model.nets] == ["VTN", "VoxelMorph", "VoxelMorph"]
    assert len(model.nets[1].passes[0].bottom) == 4


class TestBadOptions:
    def test_numbers_that_make_no_cascade(self):
        with pytest.raises(ValueError, match=r"n=0: a cascade has one stage or more"):
            build(n=0)
        with pytest.raises(ValueError, match=r"n=-1"):
            build(n=-1)
        with pytest.raises(ValueError, match=r"cascade.stages names 2 networks and n=3"):
            build(cascade={"name": "cr", "stages": ["vtn", "vtn"]}, n=3)

    def test_names_and_options(self):
        with pytest.raises(ValueError, match=r"Unknown cascade 'mrc'. Known: all_stages, cr, mcr, one_by_one"):
            build(cascade="mrc")
        with pytest.raises(ValueError, match=r"cascade 'cr' has no option 'accumulate'"):
            build(cascade={"name": "cr", "accumulate": "add"})
        with pytest.raises(ValueError, match=r"cascade.accumulate=multiply is not valid. Known: add, compose"):
            build(cascade={"name": "mcr", "accumulate": "multiply"})
        with pytest.raises(ValueError, match=r"affine=rigid is not valid. Known: none, learned, frozen"):
            build(affine="rigid")
        with pytest.raises(ValueError, match=r"affine=learned has no option 'checkpint'"):
            build(affine={"name": "learned", "checkpint": "x"}, size=SIZE)
        with pytest.raises(ValueError, match=r"affine=learned needs size"):
            build(affine="learned")
        with pytest.raises(ValueError, match=r"one_by_one.*cannot share"):
            build(cascade={"name": "one_by_one", "share_weights": True}, n=2)

    def test_what_the_program_sets_is_no_option(self):
        for option in ("levels", "flow_multiplier"):
            with pytest.raises(ValueError, match=f"network 'voxelmorph' has no option '{option}'"):
                build({"name": "voxelmorph", option: 1})
        for option in ("model", "n", "affine"):
            with pytest.raises(ValueError, match=f"cascade 'cr' has no option '{option}'"):
                build(cascade={"name": "cr", option: 1})
        with pytest.raises(ValueError, match=r"affine=learned has no option 'size'. Known: head_init"):
            build(affine={"name": "learned", "size": SIZE}, size=SIZE)

    def test_repeats(self):
        model = build(n=1)
        with pytest.raises(ValueError, match=r"r=0"):
            model(*images(), r=0)
        with pytest.raises(ValueError, match=r"repeat=both is not valid. Known: stage, chain"):
            model(*images(), repeat="both")

    def test_a_side_below_16(self):
        with pytest.raises(ValueError, match=r"16 voxels a side or more; got \(1, 1, 16, 15, 16\)"):
            build()(*images((16, 15, 16)))

    @pytest.mark.usefixtures("unchecked")
    def test_images_that_do_not_fit(self):
        with pytest.raises(ValueError, match="bring them to one size"):
            build()(torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 17))
        with pytest.raises(ValueError, match=r"\(B, 1, X, Y, Z\)"):
            build()(torch.rand(1, 2, 16, 16, 16), torch.rand(1, 2, 16, 16, 16))
        with pytest.raises(ValueError, match=r"\(B, 1, X, Y, Z\)"):
            build()(torch.rand(16, 16, 16), torch.rand(16, 16, 16))


def test_nothing_is_kept_between_calls():
    torch.manual_seed(0)
    model = build("voxelmorph", "mcr", n=2)
    with torch.no_grad():
        first = model(*images()).flow
        model(*images(ODD, batch=2))
        np.testing.assert_array_equal(model(*images()).flow, first)
