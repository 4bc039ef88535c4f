"""What is particular to each strategy."""

import pytest
import torch

from regcascade import build
from regcascade.cascades.strategies.mcr import LearnedEnlargement
from regcascade.geometry.warp import compose, resize_flow, warp
from regcascade.losses import Objective
from regcascade.types import level_size

SIZE = (16, 19, 16)


def images(batch=1, size=SIZE):
    return torch.rand(2, batch, 1, *size, generator=torch.Generator().manual_seed(0))


def lively(model, factor=1e4):
    """Makes the flows of an untrained cascade large enough to see."""
    with torch.no_grad():
        for net in model.nets:
            for head in net.heads.values():
                head.weight.mul_(factor)
    return model


@pytest.fixture(params=["add", "compose"])
def mcr(request):
    torch.manual_seed(0)
    return lively(build("voxelmorph", {"name": "mcr", "accumulate": request.param}, n=2))


def accumulated(accumulate, predicted):
    """Eq. 4 with the enlargement it starts with."""
    half, quarter = predicted[1], predicted[2]
    size = tuple(half.shape[2:])
    steps = {2: quarter}
    large = resize_flow(quarter, size, 1)
    steps[1] = half + large if accumulate == "add" else compose(large, half)
    large = resize_flow(steps[1], tuple(predicted[0].shape[2:]), 1)
    steps[0] = predicted[0] + large if accumulate == "add" else compose(large, predicted[0])
    return steps


def test_mcr_cooperates_within_and_between_sub_networks(mcr):
    moving, fixed = images(batch=2)
    with torch.no_grad():
        registration = mcr(moving, fixed)
        first, second = registration.stages
        a = accumulated(mcr.accumulate, mcr.nets[0](moving, fixed))
        b = accumulated(mcr.accumulate, mcr.nets[1](first.moved, fixed))
    torch.testing.assert_close(first.flow, a[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.flow, b[0], rtol=1e-4, atol=1e-5)
    for level in (0, 1, 2):
        assert a[level].abs().max() > 0.05
        torch.testing.assert_close(first.totals[level], a[level], rtol=1e-4, atol=1e-5)
        expected = b[level] + warp(a[level], b[level])  # Eq. 5
        torch.testing.assert_close(second.totals[level], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.moved, warp(moving, a[0]), rtol=1e-4, atol=1e-4)
    assert registration.supervised == (second,)


def test_mcr_enlarges_each_total_to_the_full_grid(mcr):
    moving, fixed = images()
    with torch.no_grad():
        registration = mcr(moving, fixed)
    for level in (1, 2):
        expected = resize_flow(registration.stages[-1].totals[level], SIZE, level)
        torch.testing.assert_close(registration.enlarged_total(level), expected)


@pytest.mark.parametrize("size", [(16, 12, 8), (17, 22, 19), (5, 6, 7)])
def test_the_learned_enlargement_starts_as_trilinear_up_to_the_border(smooth_flow, size):
    flow = smooth_flow(level_size(size, 1)).float()
    torch.testing.assert_close(LearnedEnlargement()(flow, size), resize_flow(flow, size, 1))


def test_the_learned_enlargement_is_one_up_convolution():
    layer = LearnedEnlargement()
    assert layer.weight.shape == (3, 3, 4, 4, 4) and layer.weight.requires_grad
    flow = torch.rand(1, 3, 4, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(flow, (8, 9, 11))
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, layer(flow, (8, 9, 11)))


def test_mcr_levels_are_asked_of_every_network():
    with torch.device("meta"):
        model = build(cascade={"name": "mcr", "stages": ["voxelmorph", "vtn", "drnet"]})
        assert all(net.levels == (0, 1, 2) for net in model.nets)
        assert len(model.enlarge) == 3 and all(len(steps) == 2 for steps in model.enlarge)


def test_mcr_adds_next_to_nothing():
    with torch.device("meta"):
        cr, mcr = (sum(p.numel() for p in build("drnet", name).parameters()) for name in ("cr", "mcr"))
    # Two heads, on 48 and 96 maps, and two up-convolutions of three channels.
    assert mcr - cr == 27 * 3 * (48 + 96) + 2 * 3 + 2 * 9 * 64


def test_cr_has_no_field_at_lower_resolution():
    registration = build("voxelmorph", "cr")(*images())
    with pytest.raises(ValueError, match="no field at level 1"):
        registration.enlarged_total(1)


def test_all_stages_supervises_each_stage():
    model = build("voxelmorph", "all_stages", n=2, affine="learned", size=SIZE)
    registration = model(*images(), r=2)
    assert registration.supervised == registration.stages
    assert len(registration.stages) == 5


@pytest.fixture(scope="module")
def three():
    torch.manual_seed(0)
    return build("voxelmorph", "one_by_one", n=3, affine="learned", size=SIZE)


class TestOneByOne:
    @pytest.fixture
    def model(self, three):
        three.on_progress(1.0)
        three.zero_grad()
        return three.train()

    def learning(self, model, registration):
        model.zero_grad()
        sum(stage.moved.square().sum() for stage in registration.supervised).backward()
        return [k for k, net in enumerate(model.nets) if any(p.grad is not None for p in net.parameters())]

    @pytest.mark.parametrize(
        "done, stages", [(0.0, 1), (0.33, 1), (0.34, 2), (0.66, 2), (0.67, 3), (0.999, 3), (1.0, 3)]
    )
    def test_each_stage_has_its_part_of_the_training(self, model, done, stages):
        model.on_progress(done)
        registration = model(*images())
        assert len(registration.deformable_stages) == stages
        assert self.learning(model, registration) == [stages - 1]
        affine_learns = any(p.grad is not None for p in model.affine.parameters())
        assert affine_learns == (stages == 1)

    def test_the_affine_stage_is_fixed_with_the_first(self, model):
        """Its own loss terms must not move it either."""
        objective = Objective()
        for done, learns in [(0.0, True), (0.5, False)]:
            model.zero_grad()
            model.on_progress(done)
            moving, fixed = images()
            registration = model(moving, fixed)
            assert registration.affine.matrix.requires_grad == learns
            objective(registration, fixed)["loss"].backward()
            assert any(p.grad is not None for p in model.affine.parameters()) == learns

    def test_all_stages_run_unless_a_training_says_otherwise(self, model):
        assert len(model.eval()(*images()).deformable_stages) == 3
        assert model.order(2, "chain") == [0, 1, 2, 0, 1, 2]

    def test_earlier_repeats_of_the_learning_stage_learn_too(self, model):
        model.on_progress(0.5)
        assert model.order(2, "stage") == [0, 0, 1, 1]
        assert self.learning(model, model(*images(), r=2)) == [1]

    def test_the_trained_ones_do_not_change_while_the_next_learns(self, model):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        moving, fixed = images()
        for done in (0.0, 0.4):
            model.on_progress(done)
            before = {key: value.clone() for key, value in model.state_dict().items()}
            optimizer.zero_grad()
            model(moving, fixed).moved.square().mean().backward()
            optimizer.step()
            changed = {
                key.split(".")[1] if key.startswith("nets") else "affine"
                for key, value in model.state_dict().items()
                if not torch.equal(value, before[key])
            }
            assert changed == ({"0", "affine"} if done == 0 else {"1"})

    def test_in_evaluation_gradients_flow_through_all_stages(self, model):
        moving, fixed = images()
        moving = moving.clone().requires_grad_()
        model.eval()
        registration = model(moving, fixed)
        assert self.learning(model, registration) == [0, 1, 2]
