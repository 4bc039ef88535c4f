"""The weighted sum, and which field each term sees, by terms worked out in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from regcascade import build
from regcascade.geometry.affine import Affine
from regcascade.geometry.warp import resize_flow, warp
from regcascade.losses import Objective
from regcascade.registration import Registration, Stage
from regcascade.types import level_size

SIZE = (14, 17, 19)


def cc(a, b, epsilon=1e-6):
    """Averaged over the batch; the covariances with 1e-6 added to each variance."""
    values = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        values.append(covariance / np.sqrt((x.var() + epsilon) * (y.var() + epsilon)))
    return np.mean(values)


def roughness(flow):
    """Eq. 10: squared forward differences over 3 |Omega|, averaged over the batch."""
    flow = flow.double().numpy()
    total = sum((np.diff(flow, axis=axis) ** 2).sum() for axis in (2, 3, 4))
    return total / (3 * np.prod(flow.shape[2:]) * flow.shape[0])


@pytest.fixture
def fixed(smooth):
    return (smooth(SIZE, seed=8).float() + 1) / 2


@pytest.fixture
def moving(smooth):
    return (smooth(SIZE, seed=9).float() + 1) / 2


@pytest.fixture
def affine():
    matrix = torch.eye(3) + 0.05 * torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    return Affine(matrix.requires_grad_(), torch.tensor([[1.0, 0, -1], [0, 2, 0]]), SIZE)


@pytest.fixture
def registration(smooth_flow, moving, affine):
    """An affine stage and two with fields at three levels, none of them related to another."""

    def stage(seed, of=None):
        if of is not None:
            totals = {level: of.displacement(level).detach() for level in (0, 1, 2)}
            return Stage(totals[0], totals, warp(moving, totals[0]), of)
        totals = {level: smooth_flow(level_size(SIZE, level), seed=seed + level).float() for level in (0, 1, 2)}
        return Stage(smooth_flow(SIZE, seed=seed + 3).float(), totals, warp(moving, totals[0]))

    stages = (stage(0, affine), stage(10), stage(20))
    return Registration(moving, stages, stages[-1:])


def affine_terms(matrix):
    det, ortho = [], []
    for a in matrix.detach().double().numpy():
        det.append(0.5 * (np.linalg.det(a) - 1) ** 2)
        k = np.linalg.eigvalsh(a.T @ a + 1e-5 * np.eye(3))
        ortho.append((k + (1 + 1e-5) ** 2 / k - 2 * (1 + 1e-5)).sum())
    return np.mean(det), np.mean(ortho)


def values(terms):
    return {name: value.item() for name, value in terms.items()}


def test_the_first_paper_s_loss_is_the_default(registration, fixed):
    terms = values(Objective()(registration, fixed))
    _, first, second = registration.stages
    det, ortho = affine_terms(registration.affine.matrix)
    expected = {
        "similarity": 1 - cc(second.moved, fixed),
        "smoothness": roughness(first.flow) + roughness(second.flow),
        "affine_det": det,
        "affine_ortho": ortho,
    }
    expected["loss"] = (
        expected["similarity"] + 0.5 * expected["smoothness"] + 0.1 * det + 0.1 * ortho
    )  # half of Eq. 10, as its program computes
    assert terms == pytest.approx(expected, rel=1e-4)


def test_the_second_paper_s_loss_sees_the_last_total_fields(registration, fixed):
    weights = {"lambda1": 2.0, "lambda2": 0.5, "alpha": 0.25, "beta": 0.125, "smoothness": 3.0}
    terms = values(Objective(**weights, smoothness_of="fields")(registration, fixed))
    last = registration.stages[-1]
    fields = [resize_flow(last.totals[level], SIZE, level) for level in (0, 1, 2)]
    # The affine map is left out level by level: enlarging is linear, and A multiplies every level alike.
    inverse = torch.linalg.inv(registration.affine.matrix).detach()
    parts = [total - registration.affine.displacement(level).detach() for level, total in last.totals.items()]
    deformable = [torch.einsum("bij,bjxyz->bixyz", inverse, part) for part in parts]
    without = [resize_flow(field, SIZE, level) for level, field in enumerate(deformable)]
    names = ("", "_half", "_quarter")
    for name, field, rest in zip(names, fields, without, strict=True):
        assert terms[f"similarity{name}"] == pytest.approx(1 - cc(warp(registration.moving, field), fixed), rel=1e-4)
        assert terms[f"smoothness{name}"] == pytest.approx(roughness(rest), rel=1e-4)
    level_weights = dict(zip(names, (1, 0.25, 0.125), strict=True))
    expected = sum(
        weight * (2 * terms[f"similarity{name}"] + 3 * terms[f"smoothness{name}"])
        for name, weight in level_weights.items()
    )
    expected += 0.5 * terms["edge"] + 0.1 * terms["affine_det"] + 0.1 * terms["affine_ortho"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert len(terms) == 10


def test_an_affine_map_that_enlarges_does_not_make_the_deformable_field_rougher(smooth_flow, moving, fixed):
    """DR-Net's network predicts on the result of the affine map, and its field is what Eq. 10 judges."""
    affine = Affine(1.3 * torch.eye(3)[None], torch.tensor([[1.0, 0, -2]]), SIZE, frozen=True)
    moving, fixed = moving[:1], fixed[:1]
    first = Stage(affine.displacement(), {k: affine.displacement(k) for k in (0, 1, 2)}, moving, affine)
    own = {level: smooth_flow(level_size(SIZE, level), seed=level).float()[:1] for level in (0, 1, 2)}
    totals = {level: first.followed_by(flow, level) for level, flow in own.items()}
    second = Stage(own[0], totals, warp(moving, totals[0]))
    objective = Objective(alpha=0.5, beta=0.25, smoothness_of="fields")
    terms = values(objective(Registration(moving, (first, second), (second,)), fixed))
    for level, name in enumerate(("", "_half", "_quarter")):
        expected = roughness(resize_flow(own[level], SIZE, level))
        assert terms[f"smoothness{name}"] == pytest.approx(expected, rel=1e-3), name


def test_single_scale_has_no_terms_of_other_levels(registration, fixed):
    terms = Objective(lambda2=1.0, smoothness_of="fields")(registration, fixed)
    assert set(terms) == {"similarity", "smoothness", "edge", "affine_det", "affine_ortho", "loss"}


def test_a_weight_of_zero_drops_a_term_from_the_sum(registration, fixed):
    objective = Objective(lambda1=0.0, smoothness=0.0, affine_det=0.0, affine_ortho=0.0, lambda2=1.0)
    terms = values(objective(registration, fixed))
    assert terms["loss"] == pytest.approx(terms["edge"])
    assert terms["similarity"] > 0 and terms["smoothness"] > 0


def test_an_affine_map_that_does_not_learn_pays_nothing(registration, fixed):
    first, *others = registration.stages
    frozen = replace(first, affine=replace(first.affine, frozen=True))
    terms = Objective()(replace(registration, stages=(frozen, *others)), fixed)
    assert set(terms) == {"similarity", "smoothness", "loss"}


def test_a_frozen_affine_network_says_so():
    moving, fixed = torch.rand(2, 1, 1, 16, 16, 16)
    for affine, frozen in {"learned": False, "frozen": True}.items():
        with torch.no_grad():
            assert build(n=0, affine=affine, size=(16, 16, 16))(moving, fixed).affine.frozen == frozen


def test_similarity_of_every_supervised_stage_is_summed(registration, fixed):
    everywhere = Registration(registration.moving, registration.stages, registration.stages)
    terms = values(Objective()(everywhere, fixed))
    expected = sum(1 - cc(stage.moved, fixed) for stage in registration.stages)
    assert terms["similarity"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("smoothness_of", ["stages", "fields"])
def test_an_affine_stage_alone_pays_no_smoothness(moving, fixed, affine, smoothness_of):
    stage = Stage(affine.displacement(), {0: affine.displacement()}, warp(moving, affine.displacement()), affine)
    terms = Objective(smoothness_of=smoothness_of)(Registration(moving, (stage,), (stage,)), fixed)
    assert set(terms) == {"similarity", "affine_det", "affine_ortho", "loss"}
    terms["loss"].backward()
    assert affine.matrix.grad.any()


def test_fields_that_are_only_affine_are_smooth(moving, fixed, affine):
    """A linear map enlarged is not linear next to the border; it must not be punished for that."""
    totals = {level: affine.displacement(level) for level in (0, 1, 2)}
    first = Stage(totals[0], totals, warp(moving, totals[0]), affine)
    nothing = {level: first.followed_by(torch.zeros_like(totals[level]), level) for level in totals}
    second = Stage(torch.zeros_like(totals[0]), nothing, warp(moving, nothing[0]))
    objective = Objective(alpha=0.5, beta=0.25, smoothness_of="fields")
    terms = values(objective(Registration(moving, (first, second), (second,)), fixed))
    for name in ("smoothness", "smoothness_half", "smoothness_quarter"):
        assert terms[name] == pytest.approx(0, abs=1e-9), name


@pytest.mark.parametrize("strategy, smoothness_of", [("cr", "stages"), ("mcr", "fields"), ("all_stages", "stages")])
def test_the_loss_of_a_cascade_reaches_its_parameters(strategy, smoothness_of):
    torch.manual_seed(0)
    model = build("voxelmorph", strategy, n=2, affine="learned", size=(16, 16, 16))
    moving, fixed = torch.rand(2, 2, 1, 16, 16, 16)
    levels = {"alpha": 0.5, "beta": 0.25} if strategy == "mcr" else {}
    objective = Objective(lambda2=1.0, smoothness_of=smoothness_of, **levels)
    objective.check_levels(model.levels)
    terms = objective(model(moving, fixed), fixed)
    assert all(value.ndim == 0 and value.dtype == torch.float32 for value in terms.values())
    terms["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_alternatives_come_by_name(registration, fixed):
    objective = Objective(
        similarity={"name": "lncc", "kernel_size": 5}, regularizer="bending", edge="printed", lambda2=1.0
    )
    terms = objective(registration, fixed)
    assert terms["loss"].isfinite()


def test_levels_that_a_cascade_does_not_give_are_refused():
    Objective(alpha=0.5, beta=0.25).check_levels((0, 1, 2))
    Objective().check_levels((0,))
    with pytest.raises(ValueError, match=r"loss.alpha and loss.beta weigh.*cascade=mcr"):
        Objective(alpha=0.5, beta=0.25).check_levels((0,))
    with pytest.raises(ValueError, match=r"^loss.beta weigh"):
        Objective(beta=0.25).check_levels((0,))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"alpha": -0.5}, "alpha is -0.5"),
        ({"lambda1": -1.0}, "-1.0: weights are 0 or more"),
        ({"smoothness_of": "flows"}, "loss.smoothness_of=flows is not valid. Known: stages, fields"),
        ({"edge": "literal"}, "loss.edge=literal is not valid. Known: rms, printed"),
        ({"similarity": "ncc"}, "Unknown similarity 'ncc'"),
        ({"regularizer": "diffusion"}, "Unknown regularizer 'diffusion'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Objective(**options)
