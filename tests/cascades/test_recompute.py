"""Recomputed stages: the same losses and gradients, with less kept for them; and detached stages."""

from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

from regcascade import build, cascades
from regcascade import networks as nets
from regcascade.cascades import Cascade
from regcascade.cascades.base import CASCADES
from regcascade.losses import Objective
from regcascade.networks import NETS
from regcascade.networks.base import Network
from regcascade.networks.blocks import SameConv3d
from regcascade.networks.vtn import VTNEncoder
from regcascade.registration import Registration
from regcascade.utils.half_precision import unsound_convolution

SIZE = (16, 16, 16)
COMBINATIONS = [
    (net, strategy)
    for net, strategy in product(nets.names(), cascades.names())
    if set(CASCADES.get(strategy).levels) <= set(NETS.get(net).scales)
]


# What takes long to draw and to run, with fewer feature maps.
SMALL = {name: {"name": name, "width": 2} for name in ("vtn", "monai_localnet")}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr("regcascade.networks.drnet.WIDTHS", (8, 8, 16, 16, 16))
    monkeypatch.setattr("regcascade.networks.affine.VTNEncoder", partial(VTNEncoder, 2))


def images(batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, batch, 1, *SIZE, generator=generator, dtype=torch.float64)


def lively(cascade: Cascade, seed: int = 1) -> Cascade:
    """With flow heads as large as any layer, so that stages warp, in float64."""
    generator = torch.Generator().manual_seed(seed)
    for net in cascade.nets:
        for parameter in net.heads.parameters():
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return cascade.double().train()


def made(spec: str | dict, strategy: str | dict, **options) -> Cascade:
    torch.manual_seed(0)
    return lively(build(spec, strategy, **{"n": 2, **options}))


def trained_once(cascade: Cascade, recompute: str, **weights: float) -> tuple[dict, dict[str, torch.Tensor | None]]:
    """The loss terms and the gradient of every parameter."""
    cascade.recompute = recompute
    cascade.zero_grad()
    moving, fixed = images()
    terms = Objective(**weights)(cascade(moving, fixed), fixed)
    terms["loss"].backward()
    return terms, {name: weight.grad for name, weight in cascade.named_parameters()}


def assert_the_same(cascade: Cascade, **weights: float) -> None:
    terms, gradients = trained_once(cascade, "none", **weights)
    again, recomputed = trained_once(cascade, "stage", **weights)
    assert any(gradient is not None and gradient.any() for gradient in gradients.values())
    for name, value in terms.items():
        assert torch.equal(value, again[name]), name
    for name, gradient in gradients.items():
        if gradient is None:
            assert recomputed[name] is None, name
        else:
            torch.testing.assert_close(recomputed[name], gradient, rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize(("net", "strategy"), COMBINATIONS)
def test_it_changes_neither_loss_nor_gradient(net, strategy):
    cascade = made(SMALL.get(net, net), strategy)
    levels = {"alpha": 0.5, "beta": 0.25} if 2 in cascade.levels else {}
    assert_the_same(cascade, **levels)


@pytest.mark.parametrize(
    "options",
    [
        {"cascade": {"name": "cr", "share_weights": True}, "n": 3},
        {"cascade": {"name": "mcr", "integrate": 3}},
        {"cascade": {"name": "mcr", "accumulate": "compose"}},
        {"cascade": {"name": "cr", "detach": True}},
        {"cascade": "all_stages", "affine": "learned", "size": SIZE},
        {"cascade": "mcr", "affine": "frozen", "size": SIZE},
        {"cascade": {"name": "cr", "stages": ["pyramid", "voxelmorph"]}},
    ],
    ids=str,
)
def test_nor_with_any_option(options):
    torch.manual_seed(0)
    assert_the_same(lively(build(**{"n": 2, **options})))


@pytest.mark.parametrize("done", [0.0, 0.9])
def test_one_by_one_recomputes_only_the_stage_that_learns(done):
    cascade = made("voxelmorph", "one_by_one", affine="learned", size=SIZE)
    cascade.on_progress(done)
    assert_the_same(cascade)
    calls = dict.fromkeys(range(2), 0)
    for k, net in enumerate(cascade.nets):
        net.register_forward_pre_hook(lambda _, inputs, k=k: calls.update({k: calls[k] + 1}))
    trained_once(cascade, "stage")
    assert calls == ({0: 2, 1: 0} if done == 0 else {0: 1, 1: 2})


@NETS.register("noisy_for_tests")
class Noisy(Network):
    """One convolution and dropout."""

    def __init__(self, *, levels=(0,), flow_multiplier: float = 1.0) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier)
        self.heads["0"] = SameConv3d(2, 3)

    def features(self, pair):
        return {0: nn.functional.dropout(pair, 0.5)}


NETS._classes.pop("noisy_for_tests")  # the contract tests run over whatever is registered


def test_random_numbers_are_drawn_again_as_they_were():
    cascade = made("voxelmorph", "cr")
    torch.manual_seed(0)
    cascade.nets = nn.ModuleList(Noisy() for _ in range(2))
    lively(cascade)
    results, states = [], []
    for recompute in ("none", "stage"):
        torch.manual_seed(5)
        results.append(trained_once(cascade, recompute))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)  # the backward pass leaves the generator where it was
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-12, atol=1e-14)


def test_mixed_precision_is_recomputed_in_the_same_precision():
    torch.manual_seed(0)
    cascade = lively(build("voxelmorph", "mcr", n=2)).float()
    moving, fixed = images().float()

    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cascade(moving, fixed)

    if fault := unsound_convolution(run, torch.bfloat16, torch.device("cpu")):
        pytest.skip(f"this CPU has no bf16 to train with: {fault}")
    gradients = []
    for recompute in ("none", "stage"):
        cascade.recompute = recompute
        cascade.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = Objective(alpha=0.5)(cascade(moving, fixed), fixed)
        terms["loss"].backward()
        gradients.append([weight.grad for weight in cascade.parameters() if weight.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        assert (again - plain).norm() <= 0.02 * plain.norm()  # bf16 rounds to 0.004; kernels need not repeat


def test_nothing_is_recomputed_where_there_are_no_gradients():
    cascade = made("voxelmorph", "cr")
    cascade.recompute = "stage"
    calls = []
    cascade.nets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        registration = cascade(*images())
    assert len(calls) == 1 and not registration.flow.requires_grad


def kept(cascade: Cascade, recompute: str) -> int:
    """Bytes that the graph of a registration keeps, parameters left out."""
    cascade.recompute = recompute
    own = {weight.untyped_storage().data_ptr() for weight in cascade.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if (pointer := tensor.untyped_storage().data_ptr()) not in own:
            storages[pointer] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        registration = cascade(*images())
        assert registration.flow.requires_grad
    return sum(storages.values())


def test_far_less_is_kept():
    cascade = made("voxelmorph", "mcr")
    assert kept(cascade, "stage") < 0.05 * kept(cascade, "none")


def loss_of(registration: Registration, k: int) -> torch.Tensor:
    return registration.stages[k].moved.square().sum()


@pytest.mark.parametrize("strategy", ["cr", "mcr", "all_stages"])
@pytest.mark.parametrize("recompute", ["none", "stage"])
def test_a_detached_stage_teaches_only_itself(strategy, recompute):
    cascade = made("voxelmorph", {"name": strategy, "detach": True}, n=3, affine="learned", size=SIZE)
    nn.init.normal_(cascade.affine.matrix.weight, std=1e-3)
    cascade.recompute = recompute
    parts = [cascade.affine, *cascade.nets]
    for k, _ in enumerate(parts):
        cascade.zero_grad()
        loss_of(cascade(*images()), k).backward()
        reached = [any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in parts]
        assert reached == [j == k for j in range(4)]


@pytest.mark.parametrize("strategy", ["cr", "mcr"])
def test_detaching_changes_no_result_and_compares_every_stage(strategy):
    plain = made("voxelmorph", strategy, n=3)
    detached = made("voxelmorph", {"name": strategy, "detach": True}, n=3)
    detached.load_state_dict(plain.state_dict())
    a, b = plain(*images()), detached(*images())
    assert torch.equal(a.flow, b.flow)
    assert a.supervised == (a.stages[-1],) and b.supervised == b.stages
    plain.zero_grad()
    loss_of(a, 2).backward()
    assert all(any(p.grad.any() for p in net.parameters() if p.grad is not None) for net in plain.nets)
