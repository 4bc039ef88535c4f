"""Evaluations of a small untrained cascade on phantoms: rows, resuming, stages."""

import inspect
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from regcascade import build
from regcascade.data import build_data
from regcascade.evaluation.baselines import METHODS, Method, build_method
from regcascade.evaluation.evaluate import EvaluationOptions, evaluate, flaw
from regcascade.evaluation.resume import can_resume, identity
from regcascade.evaluation.run import evaluate_to_folder
from regcascade.evaluation.stages import stage_names
from regcascade.evaluation.tables import read_pairs, summarise
from regcascade.report.runs.run import before_registration, read_run
from regcascade.report.tables.compare import compare, shown_table
from regcascade.report.tables.terminal import measure_tables
from regcascade.utils.files import file_hash

DATA = {"name": "phantom", "size": [16, 18, 20], "train": 2, "validation": 3, "validation_pairs": 4}


@pytest.fixture(scope="module")
def data():
    return build_data(DATA)


@pytest.fixture(scope="module")
def cascade():
    torch.manual_seed(0)
    cascade = build(n=2, cascade="cr", affine="learned", size=(16, 18, 20))
    with torch.no_grad():  # away from the identity it starts as
        for name, weight in cascade.named_parameters():
            scale = 1.0 if "head" in name else 0.02 if name in ("affine.matrix.weight", "affine.offset.weight") else 0.0
            weight += scale * torch.randn_like(weight)
    return cascade


def rows(folder, without=("seconds",)):
    return read_pairs(folder).drop(columns=list(without))


def stopped_after(count, monkeypatch):
    """Let an evaluation be killed after so many pairs."""
    import regcascade.evaluation.run as module

    whole = module.evaluate

    def cut(*args, **kwargs):
        for number, each in enumerate(whole(*args, **kwargs)):
            if number == count:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(module, "evaluate", cut)


def test_the_yaml_lists_the_options_and_defaults_of_the_signature():
    listed = OmegaConf.load(Path(__file__).parents[2] / "conf/evaluate.yaml")
    defaults = {key: each.default for key, each in inspect.signature(EvaluationOptions).parameters.items()}
    assert {key: listed[key] for key in defaults} == defaults


@pytest.mark.parametrize(("option", "value"), [("labels", "cubic"), ("metrics", "learn2reg2")])
def test_unknown_options_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}='?{value}"):
        EvaluationOptions(**{option: value})


def test_rows_hold_measures_before_and_after(data, cascade):
    first, *others = list(evaluate(cascade, data.test_dataloader(), data.label_names))
    assert first.first_call_seconds > 0
    assert all(each.first_call_seconds is None for each in others)
    row = first.row
    for name in (
        "dice_mean",
        "jaccard_mean",
        "jaccard_liver",
        "asd_mm",
        "asd_mm_liver",
        "hd95_mm",
        "jacobian_std",
        "cc",
    ):
        assert math.isfinite(row[name]) and math.isfinite(row[f"{name}_before"])
    assert row["displacement_mean_voxels"] > 0
    assert not any(name.startswith("displacement") and name.endswith("_before") for name in row)
    assert "peak_memory_mib" not in row  # of a GPU only
    assert not first.stages
    assert all(list(each.row) == list(row) for each in others)


def test_learn2reg_measures_come_beside_ours(data, cascade):
    plain, both = (
        next(evaluate(cascade, data.test_dataloader(), data.label_names, EvaluationOptions(metrics=metrics))).row
        for metrics in ("plain", "learn2reg")
    )
    added = ["learn2reg_dice", "learn2reg_hd95_voxels", "learn2reg_tre_mm", "learn2reg_sdlogj"]
    assert set(both) - set(plain) == {*added, *(f"{name}_before" for name in added)}
    assert both["learn2reg_sdlogj_before"] == 0
    assert both["learn2reg_tre_mm_before"] == pytest.approx(both["landmark_distance_mm_before"], rel=1e-4)


def test_linear_labels_change_the_overlap_only(data, cascade):
    nearest, linear = (
        next(evaluate(cascade, data.test_dataloader(), data.label_names, EvaluationOptions(labels=labels))).row
        for labels in ("nearest", "linear")
    )
    assert nearest["dice_mean"] != linear["dice_mean"]
    assert nearest["dice_mean_before"] == linear["dice_mean_before"]
    assert nearest["cc"] == linear["cc"]


def test_a_stopped_evaluation_goes_on_where_it_was(data, cascade, tmp_path, monkeypatch):
    options = EvaluationOptions(stages=True)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = evaluate_to_folder(cascade, data, tmp_path / "whole", None, options)
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            evaluate_to_folder(cascade, data, tmp_path / "cut", None, options)
    pairs, stages = tmp_path / "cut/pairs.csv", tmp_path / "cut/stages.csv"
    assert not (tmp_path / "cut/summary.json").exists()
    first = pairs.read_text().splitlines()[1]
    pairs.write_text(pairs.read_text()[:-30])  # as if killed while writing: the second pair is to be done again
    table = evaluate_to_folder(cascade, data, tmp_path / "cut", None, options, resume=True)
    assert pairs.read_text().splitlines()[1] == first
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), whole.drop(columns="seconds"))
    assert [line.count(",") for line in stages.read_text().splitlines()] == [8] * (1 + 4 * 4)
    summary = json.loads((tmp_path / "cut/summary.json").read_text())
    assert summary["pairs"] == 4
    assert summary["measures"]["asd_mm"]["mean"] == pytest.approx(whole["asd_mm"].mean())
    assert (summary["label_interpolation"], summary["metrics"], summary["device"]) == ("nearest", "plain", "cpu")
    assert summary["first_call_seconds"] > 0


def test_a_finished_evaluation_is_left_as_it_is(data, cascade, tmp_path, monkeypatch):
    evaluate_to_folder(cascade, data, tmp_path, None)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    stopped_after(0, monkeypatch)  # any pair would raise
    evaluate_to_folder(cascade, data, tmp_path, None, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_rank_of_a_training_evaluates_all_pairs(cascade, tmp_path):
    data = build_data(DATA)  # as its trainer leaves it on rank 0 of two
    data.trainer = SimpleNamespace(world_size=2, global_rank=0, training=False, is_global_zero=True)
    assert len(data.val_dataloader()) == 2  # which validation shares out
    table = evaluate_to_folder(cascade, data, tmp_path, None)
    assert list(zip(table["fixed"], table["moving"], strict=True)) == data.validation_pairs
    assert len(table) == json.loads((tmp_path / "summary.json").read_text())["pairs"] == 4


def test_without_resuming_a_folder_is_written_anew(data, cascade, tmp_path):
    (tmp_path / "pairs.csv").write_text("fixed,moving,other\na,b,1\n")
    assert len(evaluate_to_folder(cascade, data, tmp_path, None)) == 4


def test_an_evaluation_goes_on_only_as_the_same(data, cascade, tmp_path):
    checkpoint, other = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    checkpoint.write_bytes(b"a")
    other.write_bytes(b"b")
    folder = tmp_path / "evaluation"

    def named(options=None, file=checkpoint, device="cpu", of=data, **changed):
        return identity(cascade, of, {**DATA, **changed}, file, options or EvaluationOptions(), device)

    whose = named()
    assert whose["checkpoint_sha256"] == file_hash(checkpoint)
    assert not can_resume(folder, whose)
    assert not can_resume(folder, whose)  # it was killed before its first pair
    (folder / "pairs.csv").write_text("fixed,moving\n")
    assert can_resume(folder, whose)
    assert can_resume(folder, named(cache="none"))
    for said, other_one in {
        "checkpoint_sha256": named(file=other),
        "r was 1 and is 2": named(EvaluationOptions(r=2)),
        'labels was "nearest" and is "linear"': named(EvaluationOptions(labels="linear")),
        "stages was false and is true": named(EvaluationOptions(stages=True)),
        "device": named(device="cuda"),
        "pairs_sha256": named(of=build_data({**DATA, "validation_pairs": 3})),
        "data was": named(size=[16, 18, 22]),
    }.items():
        with pytest.raises(ValueError, match=said):
            can_resume(folder, other_one)
    (folder / "evaluation.json").unlink()
    with pytest.raises(ValueError, match=r"no evaluation\.json"):
        can_resume(folder, whose)


def test_one_pair_has_no_deviation(data, cascade, tmp_path):
    one = build_data({**DATA, "validation_pairs": 1})
    table = evaluate_to_folder(cascade, one, tmp_path, None)
    assert summarise(table)["dice_mean"] == {"mean": table["dice_mean"][0], "std": None}
    assert "NaN" not in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    ("repeat", "expected"),
    [("stage", "affine:1 1:1 1:2 2:1 2:2"), ("chain", "affine:1 1:1 2:1 1:2 2:2")],
)
def test_stages_are_named_in_the_order_they_run(cascade, repeat, expected):
    assert " ".join(f"{stage}:{k}" for stage, k in stage_names(cascade, 2, repeat)) == expected


@pytest.mark.parametrize("repeat", ["stage", "chain"])
def test_the_last_stage_is_the_whole_registration(data, cascade, repeat):
    options = EvaluationOptions(r=2, repeat=repeat, stages=True)
    each = next(evaluate(cascade, data.test_dataloader(), data.label_names, options))
    first, last = each.stages[0], each.stages[-1]
    assert [row["step"] for row in each.stages] == [0, 1, 2, 3, 4, 5]
    for measure in ("dice_mean", "cc", "folding_percent"):
        assert last[measure] == each.row[measure]
        assert first[measure] == each.row[f"{measure}_before"]
    times = [row["seconds"] for row in each.stages]
    assert times == sorted(times) and times[0] == 0 and times[1] > 0
    assert times[-1] == each.row["seconds"]
    assert len({row["cc"] for row in each.stages}) == 6
    assert not any(net._forward_pre_hooks for net in cascade.nets)


def test_stages_without_an_affine_one_and_with_shared_weights(data):
    shared = build(cascade={"name": "cr", "share_weights": True}, n=2)
    each = next(evaluate(shared, data.test_dataloader(), data.label_names, EvaluationOptions(stages=True)))
    assert [(row["stage"], row["repeat"]) for row in each.stages] == [("before", 0), ("1", 1), ("2", 1)]
    assert 0 < each.stages[1]["seconds"] < each.stages[2]["seconds"] == each.row["seconds"]


def test_a_network_that_gives_no_number_leaves_cells_empty(data, tmp_path):
    broken = build(n=1, cascade="cr")
    with torch.no_grad():
        for weight in broken.parameters():
            weight.fill_(math.nan)
    options = EvaluationOptions(stages=True, metrics="learn2reg")
    table = evaluate_to_folder(broken, data, tmp_path, None, options)
    others = ["fixed", "moving", "seconds", "failed"]
    after = table.drop(columns=[name for name in table if name.endswith("_before")] + others)
    assert after.isna().all(axis=None)
    assert table["dice_mean_before"].notna().all()
    assert (table["failed"] == "the flow is not finite").all()
    stages = pd.read_csv(tmp_path / "stages.csv")
    assert stages[["dice_mean", "cc", "folding_percent"]].notna().all(axis=1).tolist() == [True, False] * 4
    assert json.loads((tmp_path / "summary.json").read_text())["measures"]["dice_mean"] == {"mean": None, "std": None}


@dataclass(frozen=True)
class SometimesFails(Method):
    """Gives up on the second pair, and mirrors the third scan along the first axis."""

    calls: list[int] = field(default_factory=list)

    def flow(self, pair):
        self.calls.append(1)
        if len(self.calls) == 2:
            raise OSError("no\nresult")
        flow = torch.zeros(3, *pair.fixed.shape)
        if len(self.calls) == 3:
            side = pair.fixed.shape[0]
            flow[0] = (side - 1 - 2 * torch.arange(side))[:, None, None]
        return flow


def test_failures_are_counted_and_lose_no_other_pair(data, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS._classes, "sometimes_fails", SometimesFails)
    table = evaluate_to_folder(SometimesFails(), data, tmp_path, None)
    assert table["failed"].tolist() == [
        "",
        "OSError: no result",
        "the scan is mirrored or collapsed (100 % folded)",
        "",
    ]
    assert table["dice_mean"].notna().tolist() == table["seconds"].notna().tolist() == [True, False, True, True]
    assert table["dice_mean_before"].notna().all()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["pairs"], summary["failures"], summary["first_call_seconds"]) == (4, 2, None)
    assert summary["method"]["name"] == "sometimes_fails" and summary["packages"] == {}
    assert summary["measures"]["dice_mean"]["mean"] == pytest.approx(table["dice_mean"].mean())  # of three pairs
    assert not {"n", "r", "repeat", "parameters", "failed"} & {*summary, *summary["measures"]}
    console = Console(file=io.StringIO(), width=100)
    console.print(*measure_tables(table))
    assert "over 4 pairs, 2 failed" in console.file.getvalue()
    assert "Dice, 3 pairs" in console.file.getvalue()
    run = read_run(tmp_path, "sometimes")
    assert run.failures == 2 and "failed" not in run.pairs and np.isnan(run.parameters)
    row = shown_table(compare([run, before_registration(run)])).iloc[0]
    assert (row["Failed"], row["Parameters [M]"]) == ("2", "-")


def test_a_scan_thrown_out_of_the_volume_is_a_failure_though_nothing_folds():
    flow = torch.zeros(1, 3, 6, 8, 24)  # a diagonal of 26 voxels
    flow[:, 2] = 26.5
    assert "thrown out of the volume" in flaw(flow, {"folding_percent": 0.0, "displacement_mean_voxels": 26.5})
    assert flaw(flow, {"folding_percent": 0.0, "displacement_mean_voxels": 25.5}) == ""


def test_a_method_is_evaluated_again_only_as_the_same(data):
    whose = identity(build_method("identity"), data, DATA, None, EvaluationOptions(), "cpu")
    assert whose["method"] == {"name": "identity"} and whose["checkpoint_sha256"] is None


def test_stages_are_of_cascades_only(data):
    with pytest.raises(ValueError, match="stages=true"):
        next(evaluate(build_method("identity"), data.test_dataloader(), {}, EvaluationOptions(stages=True)))
