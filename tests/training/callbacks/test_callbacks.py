import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from regcascade.registration import Registration, Stage
from regcascade.training.callbacks.checkpoints import checkpoint_callbacks
from regcascade.training.callbacks.pictures import PictureCallback
from regcascade.training.callbacks.progress import TrainingProgress
from regcascade.training.callbacks.stop_reason import StopReason
from regcascade.training.loggers.metrics_file import MetricsFile

SIZE = (6, 5, 7)


class Toy(L.LightningModule):
    """Trains one number; each validation logs the next of `measures` and registers with a zero flow."""

    def __init__(
        self,
        measures: list[float],
        measure: str = "val/dice",
        fails_at: dict[int, BaseException] | None = None,
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.measures = iter(measures)
        self.measure = measure
        self.fails_at = fails_at or {}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step in self.fails_at:
            raise self.fails_at[self.global_step]
        self.log("train/loss", self.weight.detach() ** 2)
        return self.weight**2

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        flow = torch.zeros(len(batch["fixed"]), 3, *SIZE)
        stage = Stage(flow, {0: flow}, batch["moving"])
        return {"registration": Registration(batch["moving"], (stage,), (stage,)), "measures": []}

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log(self.measure, next(self.measures))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def pairs() -> DataLoader:
    batches = [
        {
            "fixed": torch.full((1, 1, *SIZE), k / 10),
            "moving": torch.rand(1, 1, *SIZE),
            "fixed_spacing": torch.ones(1, 3),
            "moving_spacing": torch.ones(1, 3),
            "fixed_name": [f"f{k}"],
            "moving_name": [f"m{k}"],
        }
        for k in range(3)
    ]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def fit(folder: Path, module: Toy, *callbacks: L.Callback, resume: bool = False, **options: Any) -> L.Trainer:
    settings = {
        "max_epochs": -1,
        "max_steps": 3,
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "logger": False,
    }
    trainer = L.Trainer(
        **{**settings, **options},
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    last = folder / "checkpoints/last.ckpt" if resume else None
    trainer.fit(module, DataLoader(torch.zeros(4, 1)), pairs(), ckpt_path=last, weights_only=True)
    return trainer


def steps_of(folder: Path) -> dict[str, int]:
    files = sorted((folder / "checkpoints").iterdir())
    assert not any(file.is_symlink() for file in files)
    return {file.name: torch.load(file, weights_only=True)["global_step"] for file in files}


@pytest.fixture
def keep_ctrl_c() -> Iterator[None]:
    """Lightning switches Ctrl+C off when it is interrupted; pytest needs it afterwards."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_best_and_last_are_two_files_also_after_resuming(tmp_path):
    fit(tmp_path, Toy([0.5, 0.7, 0.6]), *checkpoint_callbacks(True, tmp_path))
    assert steps_of(tmp_path) == {"best.ckpt": 2, "last.ckpt": 3}
    trainer = fit(tmp_path, Toy([0.65, 0.69]), *checkpoint_callbacks(True, tmp_path), resume=True, max_steps=5)
    assert steps_of(tmp_path) == {"best.ckpt": 2, "last.ckpt": 5}  # the best of the whole run, not of its end
    assert Path(trainer.checkpoint_callback.best_model_path).name == "best.ckpt"
    fit(tmp_path, Toy([0.9]), *checkpoint_callbacks(True, tmp_path), resume=True, max_steps=6)
    assert steps_of(tmp_path) == {"best.ckpt": 6, "last.ckpt": 6}


def test_without_labels_the_lowest_loss_is_best(tmp_path):
    fit(tmp_path, Toy([0.5, 0.3, 0.6], "val/loss"), *checkpoint_callbacks(False, tmp_path))
    assert steps_of(tmp_path) == {"best.ckpt": 2, "last.ckpt": 3}


def test_last_is_the_end_and_not_the_last_validation(tmp_path):
    fit(tmp_path, Toy([0.5, 0.6]), *checkpoint_callbacks(True, tmp_path), val_check_interval=2, max_steps=5)
    assert steps_of(tmp_path) == {"best.ckpt": 4, "last.ckpt": 5}
    state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert state["optimizer_states"]
    assert state["lr_schedulers"]


def test_an_interruption_keeps_the_last_step_and_an_error_does_not(tmp_path, keep_ctrl_c):
    for name, error in {"interrupted": KeyboardInterrupt(), "failed": RuntimeError("broken")}.items():
        folder, reason = tmp_path / name, StopReason()
        module = Toy([0.5], fails_at={3: error})
        with pytest.raises((SystemExit, RuntimeError)):
            fit(folder, module, reason, *checkpoint_callbacks(True, folder), val_check_interval=2, max_steps=9)
        assert steps_of(folder) == {"best.ckpt": 2, "last.ckpt": 3 if name == "interrupted" else 2}
        expected = "interrupted" if name == "interrupted" else "error RuntimeError"
        assert reason.reason.startswith(f"Training stopped: {expected}. Step 3, epoch 0")


def test_a_trial_run_leaves_no_files(tmp_path):
    fit(tmp_path, Toy([0.5]), PictureCallback(), *checkpoint_callbacks(True, tmp_path), fast_dev_run=True)
    assert not list(tmp_path.iterdir())


def test_pictures_are_of_the_first_pair_at_every_nth_validation(tmp_path, monkeypatch):
    drawn = []

    def figure(batch, registration, index=0):
        from matplotlib.figure import Figure

        drawn.append(batch["fixed_name"][index])
        assert registration.moved is batch["moving"]
        return Figure()

    monkeypatch.setattr("regcascade.training.callbacks.pictures.registration_figure", figure)
    trainer = fit(
        tmp_path,
        Toy([0.1] * 9),
        PictureCallback(2),
        num_sanity_val_steps=1,
        max_steps=5,
        val_check_interval=1,
    )
    files = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert files == ["validation_000001.png", "validation_000003.png", "validation_000005.png"]
    assert drawn == ["f0"] * 3
    trainer.validate(Toy([0.1]), pairs(), verbose=False)
    assert len(drawn) == 3


def test_every_n_validations_must_be_positive():
    with pytest.raises(ValueError, match="every_n_validations=0"):
        PictureCallback(0)


def test_tensorboard_gets_the_picture_and_metrics_csv_the_learning_rate(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [MetricsFile(tmp_path), TensorBoardLogger(tmp_path, name="tensorboard", version="")]
    fit(tmp_path, Toy([0.5]), PictureCallback(), LearningRateMonitor("step"), logger=loggers, max_steps=1)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["val/picture"]
    picture = events.Images("val/picture")[0]
    assert picture.step == 1
    assert picture.width > picture.height / 4 > 0
    assert "lr-SGD" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


def reason_of(folder: Path, measures: list[float], *callbacks: L.Callback, **options: Any) -> str:
    reason = StopReason()
    fit(folder, Toy(measures), reason, *callbacks, **options)
    return reason.reason


def test_the_reason_for_stopping_is_the_limit_with_its_numbers(tmp_path):
    steps = reason_of(tmp_path, [0.5] * 3)
    assert steps.startswith("Training stopped: max_steps=3 reached. Step 3, epoch ")
    assert "3 steps in 0:00:0" in steps
    epochs = reason_of(tmp_path, [0.5] * 9, max_steps=-1, max_epochs=2)
    assert epochs.startswith("Training stopped: max_epochs=2 reached. Step 8, epoch 2")
    short = reason_of(tmp_path, [0.5] * 9, max_steps=99, max_time=timedelta(milliseconds=1))
    assert short.startswith("Training stopped: max_time=0:00:00 reached. Step ")
    stopping = EarlyStopping("val/dice", mode="max", patience=2)
    early = reason_of(tmp_path, [0.5] * 9, stopping, max_steps=99)
    assert early.startswith("Training stopped: early stopping (Monitored metric val/dice did not improve")
    assert "Step 3," in early


def test_a_run_resumed_at_its_end_says_so(tmp_path):
    fit(tmp_path, Toy([0.5] * 3), *checkpoint_callbacks(True, tmp_path))
    reason = StopReason()
    fit(tmp_path, Toy([]), reason, *checkpoint_callbacks(True, tmp_path), resume=True)
    assert reason.reason.startswith("Training stopped: max_steps=3 reached. Step 3")
    assert steps_of(tmp_path) == {"best.ckpt": 3 - 2, "last.ckpt": 3}


@pytest.mark.parametrize(("epochs", "said"), [(-1, "Epoch 1"), (3, "Epoch 1/2")])
def test_the_bar_names_the_last_epoch_only_where_there_is_one(epochs, said):
    bar = TrainingProgress()
    bar._trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    assert bar._get_train_description(1).strip() == said
