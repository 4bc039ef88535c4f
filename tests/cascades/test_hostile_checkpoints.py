"""Checkpoints that were edited: refused in one line that names the file, in no time and without memory."""

import copy

import pytest
import torch

from regcascade import build
from regcascade.cascades.checkpoint import describe, read, write
from regcascade.data.options import check_size

SIZE = (16, 16, 16)
WEIGHT = "cascade.nets.0.heads.0.weight"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "good.ckpt"
    cascade = build("voxelmorph", "cr", 1)
    write(path, cascade, describe("voxelmorph", "cr", 1, "none", SIZE, {}, {}, {"name": "phantom"}))
    return torch.load(path, weights_only=True)


def refused(content, tmp_path) -> str:
    torch.save(content, tmp_path / "edited.ckpt")
    with pytest.raises(ValueError, match=r"edited\.ckpt") as error:
        read(tmp_path / "edited.ckpt").build()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.to_sparse,
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.complex64),
        lambda weight: torch.zeros(1).expand(weight.shape),
        lambda weight: torch.zeros(1).expand(10**12),
        lambda weight: torch.nested.nested_tensor([weight[0], weight[1]], layout=torch.jagged),
    ],
    ids=["sparse", "meta", "complex", "expanded", "huge", "nested"],
)
@pytest.mark.parametrize("place", ["weights", "elsewhere"])
def test_only_tensors_that_hold_their_numbers_are_read(change, place, content, tmp_path):
    edited = copy.deepcopy(content)
    odd = change(edited["state_dict"][WEIGHT])
    if place == "weights":
        edited["state_dict"][WEIGHT] = odd
    else:
        edited["optimizer_states"] = [{"state": {0: {"exp_avg": odd}}}]
    assert "cannot be read as a checkpoint" in refused(edited, tmp_path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"n": 1_000_000}, "n=1000000: a cascade has 1000 stages at most"),
        ({"n": 10**30}, "1000 stages at most"),
        ({"n": 900}, "more weights than the file holds"),
        ({"model": {"name": "voxelmorph", "width_multiplier": 10**5}}, "more weights than the file holds"),
        ({"model": {"name": "voxelmorph", "passes": 10**9}}, "more weights than the file holds"),
        ({"model": {"name": "vtn", "width": 1000}}, "more weights than the file holds"),
        ({"affine": "learned"}, "more weights than the file holds"),
        ({"model": 5}, "cannot be built"),
        ({"model": {"name": "voxelmorph", "width_multiplier": "x"}}, "cannot be built"),
        ({"size": [10**6] * 3}, "GiB are free"),
        ({"size": [16, 16]}, "give three sides"),
        ({"size": [16, 16, -1]}, "give three sides"),
        ({"preprocessing": 5}, "does not describe its model"),
        ({"data": [1]}, "does not describe its model"),
    ],
)
def test_numbers_and_kinds_of_a_description_have_bounds(description, message, content, tmp_path):
    edited = copy.deepcopy(content)
    edited["regcascade"] |= description
    assert message in refused(edited, tmp_path)


def test_weights_of_another_shape_are_told(content, tmp_path):
    edited = copy.deepcopy(content)
    edited["state_dict"][WEIGHT] = edited["state_dict"][WEIGHT][:1]
    assert "1 weights differ, first nets.0.heads.0.weight" in refused(edited, tmp_path)


def test_a_refused_file_bounds_no_other_model(content, tmp_path):
    refused({**content, "regcascade": {**content["regcascade"], "n": 900}}, tmp_path)
    assert build("voxelmorph", "cr", 6).n == 6


def test_repeats_have_a_bound():
    cascade = build("voxelmorph", {"name": "cr", "share_weights": True}, 4)
    assert len(cascade.order(250, "stage")) == 1000
    with pytest.raises(ValueError, match=r"r=100000.*here 250 at most"):
        cascade.order(100_000, "stage")


def test_a_size_that_no_registration_fits_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr("regcascade.data.options.available_memory", lambda: 40.0 * 16**3)
    assert check_size("data.size", SIZE) == SIZE
    with pytest.raises(ValueError, match=r"data\.size=.*GiB"):
        check_size("data.size", (16, 16, 17))
