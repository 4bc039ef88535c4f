import csv
import inspect
import json
import math
import os
import resource
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
import yaml
from forked import forked
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from phantom_runs import DATA, write_run
from torch.utils.data import DataLoader

from regcascade.data import build_data
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.registration import Registration
from regcascade.training.callbacks.pictures import PICTURE_KEY, PictureCallback
from regcascade.training.loggers.evaluation import log_evaluation
from regcascade.training.loggers.metrics_file import MetricsFile
from regcascade.training.loggers.wandb_run import close_loggers, wandb_logger, wandb_mode

KEY = "0123456789abcdef" * 2 + "01234567"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_are_written_as_they_come(tmp_path):
    logger = MetricsFile(tmp_path / "run")
    logger.log_metrics({"epoch": 0, "train/loss": torch.tensor(0.5)}, step=9)
    assert rows(tmp_path / "run") == [{"step": "9", "epoch": "0", "train/loss": "0.5"}]
    logger.log_metrics({"val/dice": 0.7, "epoch": 0}, step=9)
    assert rows(tmp_path / "run")[1] == {"step": "9", "epoch": "0", "train/loss": "", "val/dice": "0.7"}
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_a_resumed_run_adds_to_its_metrics(tmp_path):
    first = MetricsFile(tmp_path)
    first.log_metrics({"train/loss": 0.5, "train/old": 1.0}, step=1)
    second = MetricsFile(tmp_path)
    second.log_hyperparams({"n": 2})
    assert len(rows(tmp_path)) == 1
    second.log_metrics({"train/new, too": 2.0, "train/loss": 0.4}, step=2)
    assert rows(tmp_path) == [
        {"step": "1", "train/loss": "0.5", "train/old": "1.0", "train/new, too": ""},
        {"step": "2", "train/loss": "0.4", "train/old": "", "train/new, too": "2.0"},
    ]


WHOLE = "step,a,b\n1,0.25,7.5\n2,0.125,8.5\n"


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_a_line_cut_anywhere_is_dropped_and_no_number_made_of_it(tmp_path, length):
    (tmp_path / "metrics.csv").write_text(WHOLE[:length])
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 0.5, "b": 9.5}, step=3)
    kept = list(csv.DictReader(WHOLE[: WHOLE.rfind("\n", 0, length) + 1].splitlines()))
    assert rows(tmp_path) == [*kept, {"step": "3", "a": "0.5", "b": "9.5"}]


@pytest.mark.parametrize("wider", [False, True])
def test_a_disk_that_fills_keeps_the_rows_of_before_and_names_the_file(tmp_path, wider):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 0.5}, step=1)
    before = (tmp_path / "metrics.csv").read_bytes()

    def log() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, len(before) + 3))
        for _ in range(2):
            with pytest.raises(ValueError, match=r"metrics\.csv could not be written \(File too large\)\. What.*room"):
                logger.log_metrics({"another" if wider else "a": 0.25}, step=2)
            assert (tmp_path / "metrics.csv").read_bytes() == before

    process = forked(log)
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("old", ["", "step,a\n1,2\n3", "step,a\n1,2\n3,4,5\n"])
def test_a_file_cut_short_is_gone_on_with(tmp_path, old):
    (tmp_path / "metrics.csv").write_text(old)
    for column in ("a", "b"):
        logger = MetricsFile(tmp_path)
        logger.log_metrics({column: 7.0}, step=9)
    assert [row["step"] for row in rows(tmp_path)[-2:]] == ["9", "9"]
    assert (rows(tmp_path)[-2]["a"], rows(tmp_path)[-1]["b"]) == ("7.0", "7.0")
    assert (rows(tmp_path)[0]["step"] == "1") == bool(old)


@pytest.fixture
def wandb_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """W&B with no key, no settings and no run of anybody's."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    wandb.teardown()
    yield wandb
    wandb.teardown()


def test_without_a_key_wandb_is_offline_and_asks_nothing(wandb_alone, monkeypatch):
    def asked(*arguments: object) -> str:
        raise AssertionError("a prompt")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr("getpass.getpass", asked)
    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    assert wandb_mode() == "offline"


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_with_a_key_wandb_is_online(wandb_alone, monkeypatch, where):
    if where == "environment":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    else:
        server = wandb_alone.setup().settings.base_url.removeprefix("https://")
        Path(os.environ["NETRC"]).write_text(f"machine {server}\n  login user\n  password {KEY}\n")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_mode() == "offline"


def test_modes_that_cannot_be_are_errors(wandb_alone, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ValueError, match="WANDB_MODE=online needs an API key"):
        wandb_mode()
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ValueError, match="WANDB_MODE=sometimes is not valid"):
        wandb_mode()


def test_offline_files_hold_config_metrics_and_a_picture(wandb_alone, tmp_path, registered):
    run = tmp_path / "2024-01-02" / "10-11-12"
    logger = wandb_logger(run)
    config = {"n": 2, "loss": {"lambda1": 0.5}, "cascade": {"stages": ["vtn", "vtn"]}}
    logger.log_hyperparams(config)
    batch, registration = registered(stages=1)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=2, log_every_n_steps=1, default_root_dir=run, logger=logger,
        callbacks=PictureCallback(), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    pairs = DataLoader([batch], batch_size=None)
    trainer.fit(Validated(registration), DataLoader(torch.zeros(2, 1)), pairs)
    close_loggers([logger, MetricsFile(run)])
    assert wandb_alone.run is None
    file = next(run.glob("wandb/offline-run-*/run-*.wandb"))
    stored, history = content(file)
    assert {name: stored[name] for name in config} == config
    logged = {name: row for row in history for name in row}
    assert logged["train/loss"]["train/loss"] == 0.25
    assert logged["val/dice"]["val/dice"] == 0.75
    assert logged[PICTURE_KEY]["trainer/global_step"] == 2
    image = logged[PICTURE_KEY][PICTURE_KEY]
    assert image["count"] == 1
    assert (file.parent / "files" / image["filenames"][0]).stat().st_size > 1000
    assert wandb_logger(run).version == file.stem.removeprefix("run-")  # a resumed run is the same run


def test_the_evaluation_at_the_end_reaches_wandb_with_charts_and_pages(wandb_alone, tmp_path):
    run = write_run(tmp_path / "run")
    table = pd.read_csv(run / "pairs.csv")
    logger = wandb_logger(run)
    loggers = [MetricsFile(run), logger]
    best = run / "checkpoints/best.ckpt"
    log_evaluation(loggers, run, table, build_data(DATA), best, EvaluationOptions(), step=7)
    close_loggers(loggers)
    _, history = content(next(run.glob("wandb/offline-run-*/run-*.wandb")))
    logged = {name: row for row in history for name in row}
    pictures = ["labels", "initial", "cases", "worst_1", "best_1"]
    assert logged["evaluation/dice_mean"]["evaluation/dice_mean"] == pytest.approx(table["dice_mean"].mean())
    assert all(logged[f"evaluation/{name}"]["trainer/global_step"] == 7 for name in pictures)
    assert sorted(path.stem for path in (run / "figures").iterdir()) == sorted(pictures)
    assert not (run / "metrics.csv").exists()


def test_where_no_logger_takes_pictures_none_are_drawn_and_a_run_without_measures_ends_well(tmp_path):
    nothing = pd.DataFrame({"fixed": ["a"], "moving": ["b"], "dice_mean": [math.nan], "cc": [math.nan]})
    arguments = (tmp_path, nothing, build_data(DATA), None, EvaluationOptions(), 1)
    log_evaluation([MetricsFile(tmp_path)], *arguments)
    log_evaluation([TensorBoardLogger(tmp_path, name="tensorboard", version="")], *arguments)
    assert not (tmp_path / "figures").exists()


def test_every_logger_group_has_the_metrics_file_and_the_signatures_defaults(wandb_alone, tmp_path):
    conf = Path(__file__).parents[3] / "conf"
    expected = {
        "csv": [MetricsFile],
        "wandb": [MetricsFile, WandbLogger],
        "tensorboard": [MetricsFile, TensorBoardLogger],
    }
    with initialize_config_dir(str(conf / "logger"), version_base="1.3"):
        for name, classes in expected.items():
            config = compose(name, overrides=[f"+paths.run={tmp_path}"])
            loggers = [instantiate(value) for key, value in config.items() if key != "paths"]
            assert [type(logger) for logger in loggers] == classes
            assert all(Path(logger.save_dir) == tmp_path for logger in loggers)
    listed = yaml.safe_load((conf / "logger/wandb.yaml").read_text())["wandb"]
    for name, parameter in list(inspect.signature(wandb_logger).parameters.items())[1:]:
        assert listed.pop(name) == parameter.default
    assert set(listed) == {"_target_", "_convert_", "save_dir"}


class Validated(L.LightningModule):
    """Trains nothing and validates with the registration it is given."""

    def __init__(self, registration: Registration) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.registration = registration

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.log("train/loss", 0.25)
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self.log("val/dice", 0.75)
        return {"registration": self.registration}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())


def content(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The config and the history of a `.wandb` file, which is a LevelDB log of protocol buffers.

    W&B writes it from another process, whose last record, of the exit, may come a moment after the run has ended.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    config, history, records = {}, [], []
    for _ in range(600):
        records = [Record.FromString(data) for data in leveldb_records(file.read_bytes()[7:], start=7)]
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    for record in records:
        for update in [*record.run.config.update, *record.config.update]:
            config[update.key or update.nested_key[0]] = json.loads(update.value_json)
        if record.HasField("history"):
            history.append({})
            for item in record.history.item:
                *outer, last = item.nested_key or [item.key]
                place = history[-1]
                for key in outer:
                    place = place.setdefault(key, {})
                place[last] = json.loads(item.value_json)
    return config, history


def leveldb_records(data: bytes, start: int, block: int = 32768) -> Iterator[bytes]:
    """The records of a LevelDB log whose first `start` bytes are not in `data`."""
    position, record = 0, b""
    while position + 7 <= len(data):
        left = block - (position + start) % block
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<4xHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
