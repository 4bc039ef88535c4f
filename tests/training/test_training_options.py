"""Averages of weights and early stopping, each by its config."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from regcascade.training.callbacks.checkpoints import checkpoint_callbacks
from regcascade.training.callbacks.early_stopping import StopWithoutGain
from regcascade.training.callbacks.ema import AveragedWeights
from regcascade.training.callbacks.stop_reason import limit_reached


class Toy(L.LightningModule):
    """Counts its weight up by 1 in every step, notes it in validations, and logs the next of `measures` there."""

    def __init__(self, measures: list[float] | None = None, measure: str = "val/dice", fails: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.measures = iter(measures or [0.5] * 99)
        self.measure = measure
        self.fails = fails
        self.validated: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return -self.weight

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(float(self.weight))
        if self.fails:
            raise KeyboardInterrupt

    def on_validation_epoch_end(self) -> None:
        self.log(self.measure, next(self.measures))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(folder: Path, module: Toy, *callbacks: L.Callback, resume: bool = False, **options: Any) -> L.Trainer:
    settings = {"max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None, "max_epochs": -1}
    trainer = L.Trainer(
        **{**settings, **options}, accelerator="cpu", default_root_dir=folder, logger=False,
        callbacks=[*callbacks, *checkpoint_callbacks(module.measure == "val/dice", folder)],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    last = folder / "checkpoints/last.ckpt" if resume else None
    trainer.fit(module, DataLoader(torch.zeros(8, 1)), DataLoader(torch.zeros(1, 1)), ckpt_path=last, weights_only=True)
    return trainer


def averages(steps: int, decay: float = 0.999) -> list[float]:
    """After each step: the first average is the weight itself, then it forgets at min(decay, (1 + t) / (10 + t))."""
    known = [1.0]
    for t in range(1, steps):
        kept = min(decay, (1 + t) / (10 + t))
        known.append(kept * known[-1] + (1 - kept) * (t + 1))
    return known


def test_validations_and_checkpoints_have_the_average_and_training_the_weights(tmp_path):
    module = Toy()
    fit(tmp_path, module, AveragedWeights())
    expected = averages(4)
    assert module.validated == pytest.approx([expected[1], expected[3]])
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["state_dict"]["weight"].item() == pytest.approx(expected[3])
    assert last["current_model_state"]["weight"].item() == 4
    assert float(module.weight) == pytest.approx(expected[3])


def test_a_resumed_average_goes_on_exactly(tmp_path):
    first, second, straight = tmp_path / "stopped", tmp_path / "stopped", tmp_path / "straight"
    fit(first, Toy(), AveragedWeights(0.6), max_steps=3)
    fit(second, Toy(), AveragedWeights(0.6), resume=True, max_steps=6)
    fit(straight, Toy(), AveragedWeights(0.6), max_steps=6)
    ours, theirs = (torch.load(of / "checkpoints/last.ckpt", weights_only=True) for of in (second, straight))
    for state in ("state_dict", "current_model_state", "averaging_state"):
        assert all(torch.equal(value, theirs[state][key]) for key, value in ours[state].items()), state
    assert ours["state_dict"]["weight"].item() == pytest.approx(averages(6, 0.6)[-1])


def test_an_interrupted_validation_leaves_weights_and_average_apart(tmp_path):
    import signal

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        fit(tmp_path, Toy(fails=True), AveragedWeights())
    signal.signal(signal.SIGINT, handler)
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["current_model_state"]["weight"].item() == 2
    assert last["state_dict"]["weight"].item() == pytest.approx(averages(2)[-1])


@pytest.mark.parametrize(
    ("measure", "measures", "steps"),
    [("val/dice", [0.1, 0.5, 0.4, 0.5, 0.9], 8), ("val/loss", [0.5, 0.3, 0.4, 0.35, 0.1], 8)],
)
def test_early_stopping_goes_by_what_the_best_checkpoint_does(tmp_path, measure, measures, steps):
    trainer = fit(tmp_path, Toy(measures, measure), StopWithoutGain(patience=2), max_steps=99)
    assert trainer.global_step == steps
    assert limit_reached(trainer).startswith(f"early stopping (Monitored metric {measure} did not improve")


def test_small_gains_are_none(tmp_path):
    trainer = fit(tmp_path, Toy([0.1, 0.15, 0.19, 0.5]), StopWithoutGain(patience=2, min_delta=0.1), max_steps=99)
    assert trainer.global_step == 6


@pytest.mark.parametrize(
    ("callback", "options", "message"),
    [
        (AveragedWeights, {"decay": 1.0}, r"callbacks\.ema\.decay=1"),
        (StopWithoutGain, {"patience": 0}, r"callbacks\.early_stopping\.patience=0"),
        (StopWithoutGain, {"min_delta": -0.5}, r"callbacks\.early_stopping\.min_delta=-0\.5"),
    ],
)
def test_options_that_make_no_sense(callback, options, message):
    with pytest.raises(ValueError, match=message):
        callback(**options)
