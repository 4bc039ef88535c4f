"""Several processes train as one would with as many times the batch, measure together and stop together."""

import math
from pathlib import Path

import lightning as L
import pytest
import torch
from forked import on_ranks

from regcascade import build
from regcascade.data import build_data
from regcascade.losses import Objective
from regcascade.training.devices import DDP
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization

SIZE = [16, 18, 17]


def data(batch_size: int, **options):
    settings = {"size": SIZE, "train": 4, "validation": 3, "validation_pairs": 3, "pairs_per_epoch": 8, "seed": 5}
    return build_data({"name": "phantom", "batch_size": batch_size, "augmentation": "bspline", **settings, **options})


class Seen(L.Callback):
    """Notes the pairs of every training batch."""

    def __init__(self) -> None:
        self.pairs: list[list[tuple[str, str]]] = []

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        self.pairs.append(list(zip(batch["fixed_name"], batch["moving_name"], strict=True)))


def trained(rank: int, folder: Path, devices: int, change=None, steps: int = 4) -> dict:
    L.seed_everything(3, verbose=False)
    cascade = build("pyramid", "one_by_one", n=2)  # of whose stages one gets no gradient
    module = RegistrationModule(
        cascade, Objective(), Optimization(lr=1e-3, name="sgd", schedule="cosine"), labels=(1, 2)
    )
    pairs, seen = data(2 // devices), Seen()
    if change is not None:
        change(rank, module, pairs)
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy=DDP if devices > 1 else "auto", max_steps=steps, max_epochs=-1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[seen], num_sanity_val_steps=0, check_val_every_n_epoch=None,
        val_check_interval=steps,
    )  # fmt: skip
    trainer.fit(module, pairs)
    weights = {name: weight.clone() for name, weight in cascade.state_dict().items()}
    measures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"pairs": seen.pairs, "weights": weights, "measures": measures}


@pytest.mark.filterwarnings("ignore")
def test_two_ranks_train_as_one_process_with_twice_the_batch(tmp_path):
    alone = trained(0, tmp_path, 1)
    first, second = on_ranks(tmp_path, trained, tmp_path, 2)
    together = [[*a, *b] for a, b in zip(first["pairs"], second["pairs"], strict=True)]
    assert together == alone["pairs"]
    start = build("pyramid", "one_by_one", n=2).state_dict()
    for name, weight in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(alone["weights"][name], start[name]) for name in start)
    assert first["measures"].keys() == alone["measures"].keys() >= {"val/dice", "val/loss", "train/similarity"}
    for name, value in alone["measures"].items():
        assert first["measures"][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        assert second["measures"][name] == pytest.approx(first["measures"][name], rel=1e-6), name


def poisoned(rank, module, pairs) -> None:
    """Rank 1 alone has a NaN in the image of its second batch."""
    transfer, batches = pairs.on_after_batch_transfer, []

    def hook(batch, index):
        batch = transfer(batch, index)
        if module.training:
            batches.append(batch)
        if rank == 1 and len(batches) == 2:
            batch["moving"][0, 0, 3, 3, 3] = math.nan
        return batch

    pairs.on_after_batch_transfer = hook


def test_a_nan_on_one_rank_stops_all_with_its_pair(tmp_path):
    errors = on_ranks(tmp_path, trained, tmp_path, 2, poisoned)
    seen = trained(0, tmp_path, 1, steps=2)["pairs"][1][1]
    for error in errors:
        assert error.startswith("NonFiniteLossError: The loss term ")
        assert f"is not finite for the pair (fixed {seen[0]}, moving {seen[1]})" in error


def lacking(rank, module, pairs) -> None:
    """The measures of rank 1 are NaN, so that it has none to log."""
    measure = module._measures

    def measures(batch, registration):
        return [{**row, "dice": math.nan} if rank == 1 else row for row in measure(batch, registration)]

    module._measures = measures


def nan_in_validation(rank, module, pairs) -> None:
    transfer = pairs.on_after_batch_transfer

    def hook(batch, index):
        batch = transfer(batch, index)
        if rank == 1 and not module.training:
            batch["moving"][0, 0, 3, 3, 3] = math.nan
        return batch

    pairs.on_after_batch_transfer = hook


def test_measures_that_only_some_ranks_have_neither_stall_nor_bias(tmp_path):
    first, second = on_ranks(tmp_path, trained, tmp_path, 2, lacking, 1)
    whole = trained(0, tmp_path, 1, steps=1)["measures"]
    assert first["measures"]["val/cc"] == pytest.approx(whole["val/cc"], rel=1e-5)  # of three pairs, none twice
    assert first["measures"]["val/dice"] == second["measures"]["val/dice"] > 0
    assert first["measures"]["val/dice"] != pytest.approx(whole["val/dice"], rel=1e-5)
    errors = on_ranks(tmp_path, trained, tmp_path, 2, nan_in_validation, 1)
    assert all(error.startswith("NonFiniteLossError: The loss term ") for error in errors)
