"""`regcascade table`: which runs count for which row, and what stands beside the printed numbers."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from regcascade.cli.main import main
from regcascade.cli.run_folder import composed
from regcascade.report.paper.deviations import trained_otherwise
from regcascade.report.paper.experiments import CONF, TABLES, Row, printed_number, read_rows, rows_of, title
from regcascade.report.paper.runs import Found, Training, find
from regcascade.report.paper.table import lines_of, numbers, printed_table, shown_table
from regcascade.report.tables.markup import markdown
from regcascade.utils.files import file_hash

DOCS = Path(__file__).parents[2] / "docs" / "experiments.md"
MEANT = {
    "n": 10, "model": {"name": "vtn", "width": 16}, "cascade": {"name": "cr"}, "affine": {"name": "learned"},
    "loss": {"lambda1": 1.0}, "optimizer": {"lr": 1e-4},
    "data": {"name": "prepared", "batch_size": 4, "pairing": "group", "root": {"vessel": "a", "bfh": None}},
    "trainer": {"max_steps": 100, "precision": "32-true"},
}  # fmt: skip
SET_MEASURES = {"dice_mean": {"mean": 0.9, "std": 0.1}, "cc": {"mean": 0.8, "std": None}}


def compose(name: str, overrides: Sequence[str]) -> Mapping[str, Any]:
    if name == "train":
        return MEANT
    brain = {"pairing": "atlas", "atlas": None} if "data=brain" in overrides else {}
    return {"method": {"name": "ants_syn", "sampling": 4}, "data": {"name": "prepared"} | brain}


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value | changes.get(key, {}) if isinstance(value, dict) else changes.get(key, value)
            for key, value in MEANT.items()}  # fmt: skip


class Runs:
    """Makes folders of runs and evaluations as train.py and evaluate.py leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def training(self, name: str, experiment: str | None = "rcn/vtn_n10", scale: str = "paper", **changes: Any) -> Path:
        run = self.folder / "runs" / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").write_bytes(name.encode())
        config = changed(**changes) | {"reproduces": {"experiment": experiment, "scale": scale}}
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (run / ".hydra").mkdir()
        (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return run

    def evaluation(
        self, name: str, of: Path | None, of_sets: Sequence[str] = (), data: Any = None, **said: Any
    ) -> Path:
        folder = self.folder / "evaluations" / name
        folder.mkdir(parents=True)
        data = data or {"name": "prepared", "pairing": "group", "atlas": None}
        checkpoint = None if of is None else of / "checkpoints" / "last.ckpt"
        method = {"name": "network"} if of else said["method"]
        config = {"checkpoint": str(checkpoint), "method": method, "data": {"name": "trained"}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "evaluation.json").write_text(json.dumps({"data": data}), encoding="utf-8")
        part = {"pairs": 380, "measures": SET_MEASURES}
        summary = {
            "pairs": 380, "r": 1, "repeat": "stage", "label_interpolation": "linear", "device": "cuda",
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "checkpoint_sha256": None if checkpoint is None else file_hash(checkpoint), "paper_size_mib": 3400.0,
            "measures": {**SET_MEASURES, "seconds": {"mean": 0.5, "std": 0.1}},
        } | ({"sets": dict.fromkeys(of_sets, part)} if of_sets else {}) | said  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return folder

    def lines(self, table: str, place: int) -> pd.DataFrame:
        """The lines of one row, as text."""
        row = rows_of(table, read_rows())[place - 1]
        return shown_table(lines_of([row], find([self.folder]), compose))


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path)


def test_an_evaluation_stands_beside_the_row_of_the_training_whose_checkpoint_it_is_of(runs):
    run = runs.training("a")
    runs.training("another", experiment="rcn/vtn_n9")
    runs.training("by_hand", experiment=None)
    runs.evaluation("one", run, ["sliver", "lits"])
    (line,) = runs.lines("rcn/2", 16).to_dict("records")
    assert (line["Row"], line["SLIVER Dice"], line["LiTS Dice"]) == ("10-cascade VTN", "0.953 (0.014)", "0.909 (0.060)")
    assert (line["Run"], line["Settings"], line["Pairs"]) == ("runs/a", "as the paper", "SLIVER 380, LiTS 380")
    assert (line["SLIVER Dice, run"], line["LiTS Dice, run"]) == ("0.900 (0.100)", "0.900 (0.100)")
    assert line["Seconds, GPU, run"] == "0.50"
    assert "LPBA Dice, run" not in line
    assert runs.lines("rcn/2", 15)["Run"].tolist() == ["-"]  # trained, and not evaluated


def test_repeats_are_rows_of_the_same_training(runs):
    run = runs.training("a")
    runs.evaluation("one/r1", run, ["sliver"])
    runs.evaluation(
        "one/r2", run, ["sliver"], r=2, measures={}, sets={"sliver": {"pairs": 5, "measures": SET_MEASURES}}
    )
    runs.evaluation("chain", run, ["sliver"], r=3, repeat="chain")
    assert runs.lines("rcn/3", 15)["Pairs"].tolist() == ["SLIVER 380"]
    assert runs.lines("rcn/3", 16)["Pairs"].tolist() == ["SLIVER 5"]
    assert runs.lines("rcn/3", 17)["Run"].tolist() == ["-"]


def test_of_several_evaluations_that_of_most_pairs_counts(runs):
    run = runs.training("a")
    for pairs in (380, 60):
        sets = {"sliver": {"pairs": pairs, "measures": {"cc": {"mean": 0.8, "std": 0.1}}}}
        runs.evaluation(str(pairs), run, pairs=pairs, sets=sets)
    assert runs.lines("rcn/2", 16)["Pairs"].tolist() == ["SLIVER 380"]


def test_what_a_run_has_otherwise_than_the_paper_stands_beside_it(runs):
    run = runs.training(
        "a", n=3, model={"width": 8}, affine={"checkpoint": "FILE"}, data={"root": {"vessel": None, "bfh": "b"}},
        trainer={"max_steps": 50},
    )  # fmt: skip
    pd.DataFrame({"step": [0, 19]}).to_csv(run / "metrics.csv")
    (run / "checkpoints" / "best.ckpt").write_bytes(b"best")
    runs.evaluation("one", run, ["sliver"], checkpoint="best.ckpt", label_interpolation="nearest", failures=2)
    said = "n=3, model.width=8, trainer.max_steps=50, trained on bfh, 20 of 50 steps"
    assert runs.lines("rcn/2", 16)["Settings"].tolist() == [f"{said}, labels=nearest, best.ckpt, 2 pairs failed"]


def test_other_weights_to_start_from_callbacks_and_scans_stand_beside_it_too(runs):
    added = {"ema": {"_target_": "regcascade.training.callbacks.ema.AveragedWeights", "decay": 0.9}, "gone": None}
    run = runs.training("a")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    more = {"init": "some/where/weights.ckpt", "callbacks": added, "logger": {"wandb": {}}, "seed": 3}
    config = {**config, **more, "data": {**config["data"], "train": 10, "num_workers": 9, "seed": 3}}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    runs.evaluation("one", run, ["sliver"])
    said = "data.train=10, init=weights.ckpt, callbacks.ema.decay=0.9"
    assert runs.lines("rcn/2", 16)["Settings"].tolist() == [said]


def test_a_run_from_other_initial_weights_than_the_program_s_says_so():
    def of(*overrides: str) -> str:
        config = composed(CONF, "train", ["experiment=rcn/vtn_n2", *overrides])
        del config["train_r"], config["model"]["width"]  # an older version's config lacks what is newer
        return ", ".join(trained_otherwise(Training(Path("nowhere"), config, []), partial(composed, CONF)))

    assert of() == ""
    said = "model.head_init=near_zero, affine.head_init=near_zero"
    assert of("model=vtn", "affine=learned") == said


def test_a_run_in_miniature_is_marked_and_in_columns_of_its_own_data(runs):
    small = {"name": "phantom", "size": [32, 32, 32], "batch_size": 4, "pairing": "group", "root": None}
    run = runs.training("a", scale="small", data=small)
    runs.evaluation("one", run, data=small)
    (line,) = runs.lines("rcn/2", 16).to_dict("records")
    assert line["Settings"].startswith("scale=small (phantom 32x32x32)")
    assert line["phantom Dice, run"] == "0.900 (0.100)"
    assert "SLIVER Dice, run" not in line


def test_atlases_are_columns_of_one_row(runs):
    for folder, experiment in (("a", "rcn/brain/vm_n1"), ("b", "rcn/brain_3/vm_n1")):
        run = runs.training(folder, experiment)
        runs.evaluation(folder, run, ["lpba"])
    (line,) = runs.lines("rcn/5", 3).to_dict("records")
    assert (line["atlas 1 Dice"], line["atlas 3 Dice"]) == ("0.688 (0.015)", "0.678 (0.015)")
    assert (line["Run"], line["Pairs"]) == ("runs/a; runs/b", "atlas 1 380, atlas 3 380")
    assert line["atlas 1 Dice, run"] == line["atlas 3 Dice, run"] == "0.900 (0.100)"


def test_each_run_of_a_row_is_a_line_and_printed_numbers_stand_once(runs):
    for name in ("a", "b"):
        runs.evaluation(name, runs.training(name), ["sliver"])
    shown = runs.lines("rcn/2", 16)
    assert shown["Run"].tolist() == ["runs/a", "runs/b"]
    assert shown["SLIVER Dice"].tolist() == ["0.953 (0.014)", ""]


def test_a_method_without_training_counts_by_its_name_and_atlas(runs):
    brain = {"name": "prepared", "pairing": "atlas", "atlas": "lpba/S02"}
    runs.evaluation("a", None, ["sliver"], method={"name": "ants_syn", "sampling": 2}, device="cpu")
    runs.evaluation("b", None, ["lpba"], method={"name": "ants_syn", "sampling": 4}, data=brain)
    runs.evaluation("c", None, ["sliver"], method={"name": "identity"})
    (line,) = runs.lines("rcn/1", 1).to_dict("records")
    assert (line["Run"], line["Seconds, CPU, run"], line["Seconds, CPU"]) == ("evaluations/a", "0.5", "748")


def test_in_full_precision_the_printed_numbers_are_numbers(runs):
    run = runs.training("a")
    runs.evaluation("one", run, ["sliver"])
    rows = rows_of("rcn/2", read_rows())
    full = numbers(lines_of(rows, find([runs.folder]), compose))
    assert len(full) == 16
    last = full.iloc[-1]
    assert (last["sliver_dice_mean_printed_mean"], last["sliver_dice_mean_printed_std"]) == (0.953, 0.014)
    assert (last["sliver_dice_mean_mean"], last["sliver_dice_mean_pairs"]) == (0.9, 380)
    assert full["sliver_dice_mean_mean"].notna().sum() == 1


def test_the_command_writes_the_table_in_three_forms(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    run = runs.training("a")
    runs.evaluation("one", run, ["sliver"])
    main(["table", "rcn/2", "--runs", str(runs.folder), "--out", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert "RCN, Table 2" in output
    text = (tmp_path / "out" / "rcn-2.md").read_text(encoding="utf-8")
    assert "| 9-cascade VTN | 0.953 (0.014) |" in text
    assert "| runs/a | " in text
    assert "toprule" in (tmp_path / "out" / "rcn-2.tex").read_text(encoding="utf-8")
    assert len(pd.read_csv(tmp_path / "out" / "rcn-2.csv")) == 16


def test_the_tables_can_be_listed(capsys):
    main(["table", "--list"])
    output = capsys.readouterr().out
    assert all(table in output for table in TABLES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rcn/7"], "There is no table rcn/7"),
        (["rcn/2", "--runs", "nowhere"], "--runs nowhere: there is no such folder"),
        (["rcn/2", "--out", "FILE"], "is a file; name a folder"),
    ],
)
def test_what_a_user_gets_wrong_is_said(arguments, message, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["table", *(str(tmp_path / "file") if word == "FILE" else word for word in arguments)])
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.yaml", "- a list\n"), ("config.yaml", "a: [\n"), ("summary.json", "{"), ("summary.json", '{"pairs": 1}')],
)
def test_a_damaged_file_is_named(runs, file, content):
    folder = runs.evaluation("one", runs.training("a"), ["sliver"])
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{folder / file}.*(emove|Evaluate)"):
        find([runs.folder])


@pytest.mark.parametrize("wrong", [{"experiment": "other"}, {"rows": [{"table": "rcn/1"}]}, {"data": None, "rows": 3}])
def test_a_block_that_is_not_valid_is_named(tmp_path, wrong):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        yaml.safe_dump({"reproduces": {"experiment": "mine", "data": "liver", "rows": []} | wrong}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        read_rows(tmp_path)
    with pytest.raises(ValueError, match="come with the repository"):
        read_rows(tmp_path / "nowhere")


@pytest.mark.parametrize(("text", "number"), [("0.953 (0.014)", (0.953, 0.014)), ("17", (17.0, None))])
def test_printed_numbers_are_read(text, number):
    assert printed_number(text) == number


def test_anything_else_is_no_printed_number():
    with pytest.raises(ValueError, match=r"0\.9 ± 0\.1"):
        printed_number("0.9 ± 0.1")


@pytest.mark.parametrize("table", TABLES)
def test_the_docs_have_every_row_its_command_and_its_printed_numbers(table):
    wanted = f"### {table}\n\n{title(table)}\n\n{markdown(printed_table(rows_of(table, read_rows())))}"
    message = f"docs/experiments.md: the text of {table} is what regcascade table {table} --out DIR writes"
    assert wanted in DOCS.read_text(encoding="utf-8"), message


def test_a_row_without_a_run_is_a_dash():
    row = Row("rcn/2", 1, "x", "rcn/x", "liver", {"sliver": {"dice_mean": "0.5"}})
    shown = shown_table(lines_of([[row]], Found([], []), compose))
    assert shown.to_dict("records") == [{"Row": "x", "SLIVER Dice": "0.5", "Run": "-", "Settings": "-", "Pairs": "-"}]


def test_the_experiments_lie_where_the_command_looks():
    assert (CONF / "train.yaml").is_file()
