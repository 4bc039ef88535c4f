"""Sweeps: what they leave, how they are gone on with, ranked and told, and what a search asks."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from short_runs import ON_ONE_CORE, steps

from regcascade.cli import sweep as sweeps
from regcascade.cli.main import main as cli
from regcascade.report.runs.find import find_runs
from regcascade.report.runs.sweeps import FAILED, FINISHED, OPEN, read_job, read_sweep, write_job, write_sweep
from regcascade.report.tables.ranking import rank
from regcascade.training.loggers.wandb_run import group_of, run_name

COMMAND = "python train.py -m n=1,2 hydra.sweep.dir=FOLDER"


def job(sweep: Path, number: int, *overrides: str, dice: float | None = None, pairs: int = 3) -> Path:
    """The folder of a job as training leaves it, with results where there is a Dice."""
    folder = sweep / f"{number}_job"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {one}\n" for one in overrides), encoding="utf-8")
    if dice is not None:
        values = [dice - 0.01 * k * (number + 1) for k in range(pairs)]
        rows = [
            {"fixed": f"f{k}", "moving": f"m{k}", "dice_mean": value, "cc": 1 - value} for k, value in enumerate(values)
        ]
        table = pd.DataFrame(rows)
        table.to_csv(folder / "pairs.csv", index=False)
        measures = {name: {"mean": float(table[name].mean()), "std": None} for name in ("dice_mean", "cc")}
        summary = {"pairs": pairs, "parameters": 1, "paper_size_mib": 1.0, "measures": measures}
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two jobs with results, one that failed, one that did not end, one that did not start."""
    folder = tmp_path / "multirun"
    write_sweep(folder, ["loss.lambda1", "n"], 5, COMMAND)
    job(folder, 0, "loss.lambda1=0.5", "n=1", "seed=3", dice=0.5)
    job(folder, 1, "loss.lambda1=0.123456789", "n=1", "seed=3", dice=0.7)
    write_job(job(folder, 2, "loss.lambda1=0.5", "n=2", "seed=3"), FAILED, None, "loss.alpha weighs nothing.")
    (job(folder, 3, "loss.lambda1=1", "n=2", "seed=3") / "train.log").touch()
    return folder


def test_a_sweep_tells_what_became_of_its_jobs(sweep):
    read = read_sweep(sweep)
    assert [one.state for one in read.jobs] == [FINISHED, FINISHED, FAILED, OPEN]
    assert (read.waiting, read.command) == (1, COMMAND)
    assert read.jobs[2].reason == "loss.alpha weighs nothing."
    assert "killed, or still running" in read.jobs[3].reason


def compared(arguments: list[str], capsys) -> str:
    cli(["compare", *arguments])
    return " ".join(capsys.readouterr().out.split())


def test_compare_ranks_a_sweep_with_what_it_varies_as_columns(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = compared([str(sweep), "--out", str(tmp_path / "out")], capsys)
    table = pd.read_csv(tmp_path / "out/table.csv")
    assert table["name"].tolist() == ["#1", "#0"]
    assert table["lambda1"].tolist() == [0.1235, 0.5]
    assert "n" not in table and "seed" not in table  # the same in all that have results
    assert table["dice_mean_mean"].tolist() == pytest.approx([0.68, 0.49])
    assert pd.read_csv(tmp_path / "out/tests.csv")[["first", "second"]].drop_duplicates().to_numpy().tolist() == [
        ["#1", "#0"]
    ]
    failed = "Failed: #2 lambda1=0.5 n=2: loss.alpha weighs nothing."
    markdown = (tmp_path / "out/table.md").read_text(encoding="utf-8")
    for text in (
        failed,
        "Not ended: #3 lambda1=1 n=2: it has not ended",
        f"lacks 3 of 5 jobs (1 not started): {COMMAND}",
    ):
        assert text in said and text in markdown
    assert "lambda1" in (tmp_path / "out/table.tex").read_text(encoding="utf-8")


def test_runs_are_ranked_by_another_measure_and_an_unknown_one_is_named(sweep, tmp_path, capsys):
    finished = [read_job(sweep / name) for name in ("0_job", "1_job")]
    folders, jobs = [one.folder for one in finished], {one.folder: one for one in finished}
    assert [run.name for run in rank(folders, jobs, "cc").runs] == ["#0", "#1"]
    with pytest.raises(SystemExit):
        cli(["compare", str(sweep), "--rank-by", "dise_mean", "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert "--rank-by dise_mean: no run has it. Known: dice_mean, cc." in " ".join(error.split())
    assert "Did you mean 'dice_mean'" in " ".join(error.split())


def test_without_labels_the_loss_ranks_and_the_least_is_best(tmp_path):
    write_sweep(tmp_path, ["n"], 2, "")
    for number, loss in enumerate((0.3, 0.2)):
        folder = job(tmp_path, number, f"n={number}", dice=0.5)
        table = pd.read_csv(folder / "pairs.csv").drop(columns="dice_mean")
        table.to_csv(folder / "pairs.csv", index=False)
        measures = {"cc": {"mean": float(table["cc"].mean()), "std": None}}
        (folder / "summary.json").write_text(json.dumps({"pairs": 3, "measures": measures}), encoding="utf-8")
        write_job(folder, FINISHED, loss)
    jobs = {one.folder: one for one in read_sweep(tmp_path).jobs}
    ranking = rank(list(jobs), jobs)
    assert ranking.by == "loss"
    assert [dict(run.about) for run in ranking.runs] == [{"n": "1", "Loss": "0.2"}, {"n": "0", "Loss": "0.3"}]


def test_jobs_on_different_pairs_are_ranked_without_tests(sweep, tmp_path, capsys):
    job(sweep, 4, "loss.lambda1=2", "n=1", dice=0.6, pairs=2)
    said = compared([str(sweep), "--out", str(tmp_path / "out")], capsys)
    assert "No tests: #1 and #4 were evaluated on different pairs" in said
    assert "not the same for all" in said
    assert not (tmp_path / "out/tests.csv").exists()


def test_many_jobs_are_tested_against_the_best_only(tmp_path, capsys):
    folder = tmp_path / "multirun"
    write_sweep(folder, ["n"], None, "")
    for number in range(13):
        job(folder, number, f"n={number}", dice=0.5 + 0.03 * number)
    compared([str(folder), "--out", str(tmp_path / "out")], capsys)
    tests = pd.read_csv(tmp_path / "out/tests.csv")
    assert len(tests[tests["measure"] == "dice_mean"]) == 12
    assert set(tests["first"]) == {"#12"}


def test_patterns_in_quotes_stand_for_folders_and_sweeps_without_results_say_why(sweep, tmp_path):
    assert [run.name for run in find_runs([sweep / "[01]_*"])[0]] == ["0_job", "1_job"]
    with pytest.raises(ValueError, match="No folder matches"):
        find_runs([sweep / "9*"])
    write_sweep(tmp_path / "empty", ["n"], 2, COMMAND)
    with pytest.raises(ValueError, match="is a sweep of which no job has started"):
        find_runs([tmp_path / "empty"])
    write_sweep(tmp_path / "all_failed", ["n"], 1, "")
    write_job(job(tmp_path / "all_failed", 0, "n=0"), FAILED, None, "n=0 is nothing.")
    with pytest.raises(ValueError, match="0_job: n=0 is nothing"):
        find_runs([tmp_path / "all_failed"])


def test_a_run_of_a_sweep_is_named_by_what_that_varies_and_grouped_by_it(sweep, tmp_path):
    assert run_name(sweep / "1_job") == "lambda1=0.1235 n=1"
    assert group_of(sweep / "1_job") == f"{tmp_path.name}/multirun"
    alone = job(tmp_path / "runs", 0, "model=vtn", "n=2", "logger=wandb")
    assert (run_name(alone), group_of(alone)) == ("model=vtn n=2", None)
    config = {"model": {"name": "vtn"}, "cascade": {"name": "cr"}, "n": 2, "seed": 3}
    OmegaConf.save(OmegaConf.create(config), alone / ".hydra/config.yaml")
    assert run_name(alone) == "VTN CR n=2"
    (tmp_path / "runs/bare").mkdir()
    assert run_name(tmp_path / "runs/bare") == "runs/bare"


def test_a_job_goes_on_only_with_the_same_options(tmp_path):
    config = OmegaConf.create({"n": 2, "paths": {"run": str(tmp_path)}, "optimizer": {"lr": 0.1}, "logger": {"csv": 1}})
    stored = {"n": 2, "paths": {"run": "elsewhere"}, "optimizer": {"lr": 0.1}, "logger": {}}
    OmegaConf.save(OmegaConf.create(stored), tmp_path / "config.yaml")
    assert sweeps._before(tmp_path, config) is None
    write_job(tmp_path, FINISHED, 0.5)
    before = sweeps._before(tmp_path, config)
    assert before is not None and before.objective == 0.5
    config.n = 3
    with pytest.raises(ValueError, match=r"other options \(n: then 2, now 3"):
        sweeps._before(tmp_path, config)


def test_the_end_of_a_sweep_ranks_lists_and_says_whether_all_finished(sweep, capsys):
    assert not sweeps.finish_sweep(sweep)
    said = capsys.readouterr().out
    assert "2 finished, 1 failed, 1 not ended, 1 not started." in said and COMMAND in said and "Failed: #2" in said
    assert pd.read_csv(sweep / "ranking/table.csv")["name"].tolist() == ["#1", "#0"]


def test_damaged_records_are_named(sweep):
    (sweep / "2_job/job.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"2_job.job\.json cannot be read"):
        read_sweep(sweep)


TINY = [
    "data.size=[16,16,16]", "data.train=2", "data.validation=2", "data.validation_pairs=1", "data.pairs_per_epoch=1",
    *ON_ONE_CORE, *steps(1), "~callbacks.pictures",
]  # fmt: skip


@pytest.fixture
def train(in_process):
    """Trains in this process."""
    return lambda arguments, folder: in_process("train", [*arguments, *TINY], folder)


@pytest.mark.long
def test_failed_jobs_do_not_stop_a_grid_which_is_gone_on_with_where_it_was(tmp_path, train):
    grid = ["-m", "cascade=cr,mcr", "loss.alpha=0.25", "hydra.sweep.dir=grid"]
    status, said = train(grid, tmp_path)
    assert status == 1
    assert "Failed: #0 cascade=cr: loss.alpha weigh fields" in said and "1 finished, 1 failed." in said
    assert {path.name for path in (tmp_path / "grid").glob("*_*")} == {"0_cascade-cr", "1_cascade-mcr"}
    done = tmp_path / "grid/1_cascade-mcr"
    assert json.loads((done / "job.json").read_text())["objective"] == pytest.approx(
        pd.read_csv(done / "pairs.csv")["dice_mean"].mean()
    )
    (done / "pairs.csv").touch()
    before = (done / "pairs.csv").stat().st_mtime_ns
    status, said = train(grid, tmp_path)
    assert status == 1 and "Sweep grid: 1 finished, 1 failed." in said
    assert (done / "pairs.csv").stat().st_mtime_ns == before
    (done / "job.json").unlink()  # as if it had been killed: it goes on from its last checkpoint
    status, said = train(grid, tmp_path)
    assert "Resuming" in said and (done / "job.json").is_file()


OPTUNA = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper")


@pytest.mark.skipif(not OPTUNA, reason="hydra-optuna-sweeper is not installed (the extra sweep)")
@pytest.mark.long
def test_optuna_searches_for_the_highest_dice(tmp_path, train):
    status, said = train(["sweep=optuna", "n=1", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=search"], tmp_path)
    assert status == 0 and "2 finished." in said, said
    best = OmegaConf.load(tmp_path / "search/optimization_results.yaml")
    objectives = [one.objective for one in read_sweep(tmp_path / "search").jobs]
    assert best.best_value == pytest.approx(max(objectives))
    assert set(best.best_params) == {"loss.lambda1", "loss.lambda2", "loss.alpha", "loss.beta", "optimizer.lr"}


@pytest.mark.skipif(not OPTUNA, reason="hydra-optuna-sweeper is not installed (the extra sweep)")
def test_a_search_for_the_worst_is_refused(tmp_path, train):
    given = ["sweep=optuna", "n=1", "hydra.sweeper.n_trials=1", "hydra.sweeper.direction=minimize"]
    status, said = train(given, tmp_path)
    assert status == 1 and "the objective is the validation Dice; set it to maximize" in " ".join(said.split())


def test_a_missing_plugin_names_the_command_that_installs_it(tmp_path, train):
    status, said = train(["-m", "hydra/launcher=joblib", "n=1,2"], tmp_path)
    assert status == 1 and (
        "pip install hydra-joblib-launcher" in said or importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher")
    )
