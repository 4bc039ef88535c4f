"""One tiny training, logged to W&B offline, TensorBoard and the CSV: all that a dashboard shows is there."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from test_loggers import content, leveldb_records

from regcascade.cli.commands.train import train
from regcascade.cli.run_folder import register_resolvers
from regcascade.report.runs.sweeps import write_sweep
from regcascade.training.loggers.wandb_run import BEST, STEP

ROOT = Path(__file__).parents[3]
SCALARS = {
    "train/loss", "train/similarity", "train/similarity_half", "train/similarity_quarter", "train/edge",
    "train/smoothness", "train/smoothness_half", "train/smoothness_quarter", "train/gradient_norm",
    "train/pairs_per_second", "train/peak_process_memory_mib", "val/loss", "val/dice", "val/cc", "val/folding_percent",
    "val/landmark_distance_voxels", "lr-Adam/networks",
}  # fmt: skip
PICTURES = {"val/picture", "evaluation/worst_1", "evaluation/best_1", "evaluation/labels", "evaluation/cases"}


class Logged(NamedTuple):
    """What one run has left: its folder, W&B's config, history and records, TensorBoard's names."""

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]
    records: list[Any]
    tensorboard: dict[str, list[str]]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A training of two steps as a job of a sweep."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    sweep = tmp_path_factory.mktemp("12-00-00")
    run = sweep / "0_n-1"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(sweep))
        patch.setenv("NETRC", str(sweep / "netrc"))
        wandb.teardown()
        _train(sweep, run)
        wandb.teardown()
    file = next(run.glob("wandb/offline-run-*/run-*.wandb"))
    config, history = content(file)
    yield Logged(run, config, history, _records(file), _tensorboard(run))


def _train(sweep: Path, run: Path) -> None:
    write_sweep(sweep, ["n", "loss.lambda2"], 2, "")
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/overrides.yaml").write_text("- n=1\n- loss.lambda2=0.25\n- seed=0\n", encoding="utf-8")
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [
            f"paths.run={run}", "logger=[tensorboard,wandb]", "n=1", "loss.lambda2=0.25", "data.size=[16,16,16]",
            "data.train=2", "data.validation=2", "data.validation_pairs=2", "data.pairs_per_epoch=2",
            "trainer.max_steps=2", "trainer.max_time=null", "trainer.val_check_interval=2",
            "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
        ])  # fmt: skip
    train(config)


def _records(file: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    return [Record.FromString(data) for data in leveldb_records(file.read_bytes()[7:], start=7)]


def _tensorboard(run: Path) -> dict[str, list[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {kind: events.Tags()[kind] for kind in ("scalars", "images")}


@pytest.mark.long
def test_every_scalar_is_in_the_csv_in_wandb_and_in_tensorboard(logged):
    table = pd.read_csv(logged.folder / "metrics.csv")
    known = {name for name in table if table[name].notna().any()}
    in_wandb = {name for row in logged.history for name in row}
    assert SCALARS - known == set()
    assert SCALARS - in_wandb == set()
    assert SCALARS - set(logged.tensorboard["scalars"]) == set()
    assert table["train/gradient_norm"].dropna().gt(0).all() and table["train/gradient_norm"].count() == 2
    assert table["train/pairs_per_second"].dropna().gt(0).all()
    assert table["train/peak_process_memory_mib"].dropna().between(50, 1e6).all()
    assert all(STEP in row for row in logged.history if any(name in SCALARS for name in row))


@pytest.mark.long
def test_pictures_of_stages_and_the_table_of_pairs_are_there(logged):
    in_wandb = {name: row[name] for row in logged.history for name in row}
    assert PICTURES - set(in_wandb) == set()
    assert PICTURES - set(logged.tensorboard["images"]) == set()
    pairs = in_wandb["evaluation/pairs"]
    assert (pairs["_type"], pairs["nrows"]) == ("table-file", 2)
    files = logged.folder / next(logged.folder.glob("wandb/offline-run-*/files"))
    text = (files / pairs["path"]).read_text(encoding="utf-8")
    assert '"fixed"' in text and '"dice_mean"' in text


@pytest.mark.long
def test_the_run_has_its_config_name_group_and_tags(logged):
    assert logged.config["loss"]["lambda2"] == 0.25
    assert (logged.config["stages"], logged.config["model"]["name"]) == (1, "voxelmorph")
    run = [record.run for record in logged.records if record.HasField("run")][-1]
    assert (run.display_name, run.job_type) == ("n=1 lambda2=0.25", "train")
    assert run.run_group == "/".join(logged.folder.parts[-3:-1])
    assert {"voxelmorph", "mcr", "n=1"} <= {tag for record in logged.records for tag in record.run.tags}


@pytest.mark.long
def test_every_measure_has_its_step_and_its_best(logged):
    defined = {record.metric.name: record.metric for record in logged.records if record.HasField("metric")}
    for name, best in BEST.items():
        assert defined[name].step_metric == STEP or defined[name].step_metric_index
        assert getattr(defined[name].summary, best), name
