"""What a training that goes on from a checkpoint may have otherwise, and what not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from regcascade import build
from regcascade.cascades.checkpoint import Checkpoint, CheckpointError, describe
from regcascade.losses import Objective
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization
from regcascade.training.resume import check_resumed, check_state, restoring

SIZE = (16, 16, 16)


def module(optimization: Optimization, affine: str = "none", n: int = 1, **otherwise: Any) -> RegistrationModule:
    model, strategy = "voxelmorph", {"name": "cr", "integrate": 0}
    cascade = build(model, strategy, n, affine, SIZE)
    description = describe(model, strategy, n, affine, SIZE, {}, {}, {"name": "phantom", "seed": 0}, {"lambda1": 1.0})
    return RegistrationModule(cascade, Objective(), optimization, {**description, **otherwise})


def checkpoint(of: RegistrationModule) -> Checkpoint:
    """As Lightning saves it, after the learning rate has moved."""
    optimizer = of.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] *= 0.123
    return Checkpoint(Path("some.ckpt"), of.description, of.cascade.state_dict(), 7, optimizer.state_dict())


STARTED = Optimization("adam", lr=3e-4, weight_decay=0.01, head_lr=7.0)
ALONE = replace(STARTED, head_lr=1.0)


@pytest.mark.parametrize("started", [STARTED, ALONE, replace(STARTED, name="adamw"), replace(STARTED, name="sgd")])
@pytest.mark.parametrize(("affine", "n"), [("none", 1), ("learned", 1), ("learned", 0)])
def test_the_same_options_go_on(started, affine, n):
    then = checkpoint(module(started, affine, n))
    assert check_resumed(then, module(started, affine, n)) == []


@pytest.mark.parametrize(
    ("started", "option", "value", "then", "now"),
    [
        (STARTED, "lr", 0.5, "0.0003", "0.5"),
        (STARTED, "head_lr", 3.0, "7.0", "3.0"),
        (STARTED, "head_lr", 1.0, "7.0", "1.0"),
        (ALONE, "head_lr", 3.0, "1.0", "3.0"),
        (STARTED, "weight_decay", 0.0, "0.01", "0.0"),
        (STARTED, "name", "adamw", "adam", "adamw"),
        (STARTED, "name", "sgd", "adam", "sgd"),
        (replace(STARTED, name="adamw"), "name", "adam", "adamw", "adam"),
    ],
)
def test_another_optimizer_than_the_state_has_is_refused(started, option, value, then, now):
    resumed = module(replace(started, **{option: value}))
    with pytest.raises(CheckpointError, match=rf"^optimizer\.{option}: then {then}, now {now}: .*init=FILE"):
        check_resumed(checkpoint(module(started)), resumed)


@pytest.mark.parametrize(
    ("otherwise", "words"),
    [
        ({"cascade": {"name": "cr", "integrate": 3}}, r"cascade\.integrate: then 0, now 3"),
        ({"size": [18, 16, 16]}, r"data\.size: then \[16, 16, 16\], now \[18, 16, 16\]"),
        ({"affine": "precomputed"}, "affine: then none, now precomputed"),
    ],
)
def test_another_model_of_the_same_weights_is_refused(otherwise, words):
    with pytest.raises(CheckpointError, match=f"another model: {words}"):
        check_resumed(checkpoint(module(STARTED)), module(STARTED, **otherwise))


def test_a_checkpoint_older_than_an_option_goes_on():
    then = checkpoint(module(STARTED, cascade={"name": "cr"}))
    assert check_resumed(then, module(STARTED)) == []


def test_another_loss_and_other_data_are_told():
    resumed = module(STARTED, data={"name": "phantom", "seed": 1}, loss={"lambda1": 2.0})
    assert check_resumed(checkpoint(module(STARTED)), resumed) == [
        "data.seed: then 0, now 1", "loss.lambda1: then 1.0, now 2.0",
    ]  # fmt: skip


def test_weights_alone_are_refused_and_init_named():
    of = module(STARTED)
    weights = Checkpoint(Path("weights.ckpt"), of.description, of.cascade.state_dict(), 0)
    with pytest.raises(CheckpointError, match=r"weights only.*init=weights\.ckpt"):
        check_state(weights)
    check_state(checkpoint(of))


def stepped() -> Checkpoint:
    """After a step of the optimiser, as Adam keeps its moments from then on."""
    of = module(STARTED)
    optimizer = of.configure_optimizers()["optimizer"]
    for weight in of.cascade.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return Checkpoint(Path("some.ckpt"), of.description, of.cascade.state_dict(), 1, optimizer.state_dict())


def test_moments_of_a_training_go_on():
    assert check_resumed(stepped(), module(STARTED)) == []


@pytest.mark.parametrize(
    ("place", "junk"),
    [
        (("state", 0, "exp_avg"), torch.zeros(7)),
        (("state", 0, "exp_avg"), "junk"),
        (("state", 0, "exp_avg_sq"), torch.zeros(1, dtype=torch.int8)),
        (("state", 0), {"step": torch.tensor(1.0)}),
        (("state", 0), {"step": "x", "exp_avg": "x", "exp_avg_sq": "x"}),
        (("state", 999), {"step": torch.tensor(1.0)}),
        (("state",), [1, 2]),
        (("param_groups", 0), {"a": 1}),
        (("param_groups", 0, "lr"), "x"),
        (("param_groups", 0, "initial_lr"), "x"),
    ],
)
def test_junk_in_the_state_of_the_optimiser_is_refused_before_it_is_used(place, junk):
    then = stepped()
    *above, last = place
    node: Any = then.optimizer
    for key in above:
        node = node[key]
    node[last] = junk
    with pytest.raises(CheckpointError, match=r"^some\.ckpt cannot be resumed: the state of its .*init=some\.ckpt"):
        check_resumed(then, module(STARTED))


def test_what_fails_while_lightning_restores_names_the_file_and_nothing_else_does():
    def restore_training_state() -> None:
        raise KeyError("lr_lambdas")

    message = r"some\.ckpt cannot be resumed.*KeyError.*lr_lambdas"
    with pytest.raises(CheckpointError, match=message), restoring(stepped()):
        restore_training_state()
    with pytest.raises(KeyError, match="ours"), restoring(stepped()):
        raise KeyError("ours")
