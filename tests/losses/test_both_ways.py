"""The objective of pairs registered both ways, and the swapped batch."""

import pytest
import torch

from regcascade import build
from regcascade.losses import Objective, folding_loss, inverse_consistency_loss
from regcascade.types import swapped

SIZE = (16, 18, 17)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    fixed, moving = torch.rand(2, 2, 1, *SIZE, generator=generator)
    return {
        "fixed": fixed, "moving": moving, "fixed_labels": (fixed > 0.5).long(), "moving_labels": (moving > 0.5).long(),
        "fixed_spacing": torch.ones(2, 3), "moving_spacing": 2 * torch.ones(2, 3),
        "fixed_name": ["a", "b"], "moving_name": ["c", "d"],
    }  # fmt: skip


@pytest.fixture
def cascade(batch):
    torch.manual_seed(0)
    cascade = build("voxelmorph", "cr", n=2)
    with torch.no_grad():
        for net in cascade.nets:
            net.heads["0"].weight.mul_(3 / net(batch["moving"], batch["fixed"])[0].abs().max())
    return cascade


def test_every_other_term_is_the_mean_of_both_ways(cascade, batch):
    weights = {"lambda2": 0.5, "labels": 2.0, "folding": 10.0}
    with torch.no_grad():
        there, back = cascade.register(batch), cascade.register(swapped(batch))
        one = Objective(**weights)(there, batch["fixed"], batch)
        other = Objective(**weights)(back, batch["moving"], swapped(batch))
        both = Objective(**weights, inverse_consistency=0.25)(there, batch["fixed"], batch, back)
    left = inverse_consistency_loss(there.flow, back.flow)
    assert left > 0.01 and one["labels"] != other["labels"]
    for name in one:
        if name != "loss":
            torch.testing.assert_close(both[name], (one[name] + other[name]) / 2)
    torch.testing.assert_close(both["inverse_consistency"], left)
    torch.testing.assert_close(both["loss"], (one["loss"] + other["loss"]) / 2 + 0.25 * left)


def test_the_folding_is_that_of_the_total_flow(cascade, batch):
    with torch.no_grad():
        registration = cascade.register(batch)
        terms = Objective(folding=4.0)(registration, batch["fixed"])
        without = Objective()(registration, batch["fixed"])
    assert "folding" not in without
    assert terms["folding"] == folding_loss(registration.flow) > 0
    torch.testing.assert_close(terms["loss"], without["loss"] + 4 * terms["folding"])


def test_nothing_is_registered_both_ways_by_default(cascade, batch):
    assert not Objective().both_ways
    assert Objective(inverse_consistency=0.1).both_ways
    terms = Objective(inverse_consistency=0.1)(cascade.register(batch), batch["fixed"])
    assert "inverse_consistency" not in terms  # as in validation


def test_gradients_come_from_both_ways(cascade, batch):
    there, back = cascade.register(batch), cascade.register(swapped(batch))
    objective = Objective(lambda1=0.0, smoothness=0.0, inverse_consistency=1.0)
    objective(there, batch["fixed"], batch, back)["loss"].backward()
    assert all(parameter.grad.any() for parameter in cascade.parameters())


def test_a_swapped_batch_is_the_pairs_the_other_way_round(batch):
    alignment = torch.eye(4).repeat(2, 1, 1)
    alignment[:, 0, 3], alignment[:, 1, 1] = 3.0, 2.0
    turned = swapped({**batch, "alignment": alignment})
    for key in ("", "_labels", "_spacing", "_name"):
        assert turned[f"fixed{key}"] is batch[f"moving{key}"]
        assert turned[f"moving{key}"] is batch[f"fixed{key}"]
    torch.testing.assert_close(turned["alignment"] @ alignment, torch.eye(4).repeat(2, 1, 1))
    assert turned.keys() == {*batch, "alignment"}


@pytest.mark.parametrize("option", ["folding", "inverse_consistency"])
def test_weights_below_zero_are_refused(option):
    with pytest.raises(ValueError, match=rf"{option} is -1.0"):
        Objective(**{option: -1.0})
