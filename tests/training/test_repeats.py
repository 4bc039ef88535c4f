"""How often training applies each network: what is drawn, and that a step trains what an evaluation computes."""

from copy import deepcopy

import lightning as L
import pytest
import torch
from torch import nn

from regcascade import build
from regcascade.losses import Objective
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization
from regcascade.training.repeats import Repeats

SIZE = (16, 16, 16)


def batch(seed: int = 0) -> dict:
    images = torch.rand(2, 1, 1, *SIZE, generator=torch.Generator().manual_seed(seed))
    return {"fixed": images[0], "moving": images[1], "fixed_name": ["f"], "moving_name": ["m"]}


def lively(strategy: str, **options):
    """A cascade whose stages warp, so that a repeat changes the result."""
    torch.manual_seed(0)
    cascade = build({"name": "vtn", "width": 2}, strategy, n=2, **options)
    for net in cascade.nets:
        for head in net.heads.values():
            nn.init.normal_(head.weight, std=0.02)
    return cascade


def fit(module: RegistrationModule, tmp_path, steps: int) -> list[int]:
    """Train; return how many deformable stages ran in each training step."""
    ran = []
    module.objective.register_forward_hook(
        lambda _, given, __: ran.append(len(given[0].deformable_stages)) if module.training else None
    )
    loader = torch.utils.data.DataLoader([batch(k) for k in range(steps)], batch_size=None)
    L.Trainer(
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, default_root_dir=tmp_path,
    ).fit(module, loader)  # fmt: skip
    return ran


@pytest.mark.parametrize(
    ("strategy", "repeat", "recompute"),
    [("cr", "stage", "none"), ("cr", "chain", "stage"), ("mcr", "stage", "stage"), ("mcr", "chain", "none")],
)
def test_a_step_trains_what_evaluating_with_its_r_computes(tmp_path, strategy, repeat, recompute):
    cascade = lively(strategy)
    cascade.recompute = recompute
    by_hand, objective = deepcopy(cascade), Objective(alpha=0.5 if strategy == "mcr" else 0.0)
    plan = Optimization(name="sgd", lr=0.1)
    module = RegistrationModule(cascade, objective, plan, repeats=Repeats.of(2, repeat))
    assert fit(module, tmp_path, 1) == [4]
    given = batch()
    once, twice = (by_hand(given["moving"], given["fixed"], r=r, repeat=repeat) for r in (1, 2))
    assert (once.flow - twice.flow).abs().max() > 0.01
    objective(twice, given["fixed"])["loss"].backward()
    for ours, theirs in zip(cascade.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs if theirs.grad is None else theirs - 0.1 * theirs.grad)


def test_a_range_is_drawn_anew_for_every_step_by_seed_and_step_alone(tmp_path):
    repeats = Repeats.of([1, 3], seed=7)
    drawn = [repeats.at(step) for step in range(60)]
    assert set(drawn) == {1, 2, 3}
    torch.manual_seed(99)
    assert [Repeats.of((1, 3), seed=7).at(step) for step in range(60)] == drawn
    assert [Repeats.of([1, 3], seed=8).at(step) for step in range(60)] != drawn
    module = RegistrationModule(lively("cr"), Objective(), repeats=repeats)
    assert fit(module, tmp_path, 3) == [2 * r for r in drawn[:3]]


def test_validation_and_evaluation_apply_as_often_as_training_at_most():
    repeats = Repeats.of([1, 3])
    assert (repeats.unless(None), repeats.unless(1)) == (3, 1)
    module = RegistrationModule(lively("cr"), Objective(), repeats=repeats)
    with torch.no_grad():
        assert len(module.validation_step(batch(), 0)["registration"].deformable_stages) == 6


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2", [1], [3, 1], [0, 2], [1, 2, 3], [1, "3"], None])
def test_anything_else_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"train_r=.*: give an integer, 1 or more, or a range of them"):
        Repeats.of(wrong)
