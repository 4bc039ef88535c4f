"""Training and testing on prepared folders: the papers' pair lists, several sets, atlases."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from regcascade import build
from regcascade.data import build_data
from regcascade.data.preprocessing.case_files import Record, case_file, write_case, write_manifest
from regcascade.evaluation.run import evaluate_to_folder

CONFIGS = Path(__file__).parents[3] / "conf/data"
RECORD = Record(
    "x", [4, 5, 6], np.eye(4).tolist(), [1], None, None, {"image": "x.nii", "sha256": "0"}, {"name": "generic"}
)


def folder(root, names, groups=None, labels=True, label_names=None, size=(4, 5, 6), points=None):
    """A prepared folder, whose cases have a mean intensity of their number / 200."""
    records = []
    for number, name in enumerate(names):
        record = replace(
            RECORD,
            name=name,
            group=(groups or {}).get(name),
            labels=[1] if labels else None,
            size=list(size),
            points=None if points is None else len(points),
        )
        path = case_file(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = torch.full((1, *size), (number + 1) / 200)
        image[0, 0] -= 0.001
        image[0, 1] += 0.001
        write_case(path, record, image, torch.ones_like(image).to(torch.int16) if labels else None, points)
        records.append(record)
    write_manifest(root, records, label_names or {1: "liver"})
    return str(root)


def numbered(prefix, count):
    return [f"{prefix}{number:03d}" for number in range(count)]


def test_the_papers_liver_pairs_are_counted(tmp_path):
    """380 of SLIVER, 17,030 of LiTS, 34 of LSPIG within an animal."""
    pigs = [f"pig{number}_{when}" for number in range(17) for when in ("a", "b")]
    options = yaml.safe_load((CONFIGS / "liver.yaml").read_text())
    train = {name: folder(tmp_path / name, numbered("t", 3), labels=False) for name in ("vessel", "pancreas", "liver")}
    test = {
        "sliver": folder(tmp_path / "sliver", numbered("s", 20)),
        "lits": folder(tmp_path / "lits", numbered("l", 131)),
        "lspig": folder(tmp_path / "lspig", pigs, {name: name.split("_")[0] for name in pigs}),
    }
    assert set(options["root"]) - {"bfh"} == set(train) and set(options["test"]) == set(test)
    data = build_data(
        {"name": "prepared", "root": {**train, "bfh": None}, "test": test, "pairing": options["pairing"],
         "validation_pairs": None}
    )  # fmt: skip
    counts = Counter(fixed.split("/")[0] for fixed, _ in data.validation_pairs)
    assert counts == {"sliver": 380, "lits": 17_030, "lspig": 34}
    assert len(set(data.validation_pairs)) == 17_444
    assert all(fixed.split("/")[0] == moving.split("/")[0] for fixed, moving in data.validation_pairs)
    assert len(data.train_names) == 9


def test_the_papers_brain_pairs_have_the_atlas_fixed_in_training_too(tmp_path):
    options = yaml.safe_load((CONFIGS / "brain.yaml").read_text())
    train = {name: folder(tmp_path / name, numbered(name, 3), labels=False) for name in options["root"]}
    test = {"lpba": folder(tmp_path / "lpba", [f"S{number:02d}" for number in range(1, 41)])}
    spec = {**options, "name": "prepared", "root": train, "test": test, "num_workers": 0}
    del spec["defaults"]
    data = build_data(spec)
    assert data.validation_pairs == [("lpba/S01", f"lpba/S{number:02d}") for number in range(2, 41)]
    batches = list(data.train_dataloader())[:40]
    assert {name for batch in batches for name in batch["fixed_name"]} == {"lpba/S01"}
    assert {name.split("/")[0] for batch in batches for name in batch["moving_name"]} == set(train)
    second = build_data({**spec, "atlas": "lpba/S02"})
    assert second.validation_pairs[0] == ("lpba/S02", "lpba/S01") and len(second.validation_pairs) == 39
    without = {"lpba": folder(tmp_path / "without", ["S02", "S03"])}
    with pytest.raises(ValueError, match=r"data\.atlas=lpba/S01: there is no such scan"):
        build_data({**spec, "test": without})


def test_one_folder_is_split_and_read(tmp_path):
    root = folder(tmp_path, numbered("c", 10))
    data = build_data({"name": "prepared", "root": root, "validation": 4, "validation_pairs": 5, "num_workers": 0})
    assert len(data.train_names) == 6 and len(data.validation_pairs) == 5
    assert data.size == (4, 5, 6) and data.label_names == {1: "liver"} and data.has_labels
    batch = next(iter(data.train_dataloader()))
    assert batch["fixed"].shape == (1, 1, 4, 5, 6)
    assert batch["moving"].mean().item() == pytest.approx((int(batch["moving_name"][0][1:]) + 1) / 200, abs=1e-6)
    json.dumps(data.preprocessing)


def test_an_evaluation_tells_the_sets_apart(tmp_path):
    size = (16, 17, 18)
    test = {name: folder(tmp_path / name, numbered(name, 2 + k), size=size) for k, name in enumerate("ab")}
    data = build_data({"name": "prepared", "test": test, "validation_pairs": None, "num_workers": 0})
    rows = evaluate_to_folder(build(n=1), data, tmp_path, None)
    assert rows["set"].tolist() == ["a"] * 2 + ["b"] * 6
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: part["pairs"] for name, part in summary["sets"].items()} == {"a": 2, "b": 6}
    dice = [part["measures"]["dice_mean"]["mean"] for part in (*summary["sets"].values(), summary)]
    assert dice[2] == pytest.approx((2 * dice[0] + 6 * dice[1]) / 8)


def test_weights_say_how_often_training_draws_from_a_set(tmp_path):
    root = {name: folder(tmp_path / name, numbered(name, 4)) for name in ("a", "b", "c")}
    spec = {"name": "prepared", "root": root, "validation": 0.0, "train": None, "num_workers": 0}
    spec |= {"weights": {"a": 3.0, "c": 0.0}, "pairs_per_epoch": 400, "pairs": str(tmp_path / "pairs.csv")}
    (tmp_path / "pairs.csv").write_text("fixed,moving\na/a000,b/b001\n")
    sampler = build_data(spec).train_dataloader().dataset
    drawn = Counter(sampler.cases.names[sampler.draw(k)[0]].split("/")[0] for k in range(4000))
    assert set(drawn) == {"a", "b"}
    assert drawn["a"] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("name", ["liver", "brain"])
def test_the_papers_sets_are_one_pool_and_within_a_set_is_an_option(name, tmp_path):
    """All training scans alike, whatever their set: 2 of 12 scans are a sixth of all draws, not a half."""
    options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    root = {"a": folder(tmp_path / "a", numbered("a", 2)), "b": folder(tmp_path / "b", numbered("b", 10))}
    spec = {"name": "prepared", "root": root, "test": {"lpba": folder(tmp_path / "t", ["S01", "S02"])}}
    spec |= {key: value for key, value in options.items() if key not in ("defaults", "root", "test")}

    def drawn(**more):
        pairs = build_data({**spec, **more}).train_dataloader().dataset
        assert pairs.count == (12 if name == "brain" else 132 if not more else 92)
        return [tuple(pairs.cases.names[index][0] for index in pairs.draw(k)) for k in range(3000)]

    if name == "brain":
        spec["atlas"] = "lpba/S01"
        assert sum(moving == "a" for _, moving in drawn()) / 3000 == pytest.approx(1 / 6, abs=0.03)
        assert sum(moving == "a" for _, moving in drawn(weights="alike")) / 3000 == pytest.approx(1 / 2, abs=0.03)
        return
    pairs = Counter(drawn())
    expected = {("a", "a"): 2, ("a", "b"): 20, ("b", "a"): 20, ("b", "b"): 90}
    assert {pair: count / 3000 for pair, count in pairs.items()} == pytest.approx(
        {pair: count / 132 for pair, count in expected.items()}, abs=0.03
    )
    within = Counter(drawn(weights="alike"))
    assert set(within) == {("a", "a"), ("b", "b")} and within["a", "a"] / 3000 == pytest.approx(0.5, abs=0.03)


def test_what_does_not_fit_is_refused(tmp_path):
    one = folder(tmp_path / "one", numbered("c", 4))
    other = folder(tmp_path / "other", numbered("c", 3), label_names={1: "spleen"})
    five, six = (folder(tmp_path / str(k), numbered("c", 4), points=torch.ones(k, 3)) for k in (5, 6))
    large = folder(tmp_path / "large", numbered("c", 3), size=(8, 8, 8))
    for options, message in [
        ({}, "data.root=DIR"),
        ({"root": {"a": one, "b": other}}, "Label 1 is 'liver' in one set and 'spleen' in 'b'"),
        ({"root": {"a": one, "b": large}}, r"differ in size: \[4, 5, 6\]"),
        ({"root": one, "pairing": "pair"}, "data.pairing=pair is not valid. Known: set, group, atlas"),
        ({"root": one, "atlas": "c000"}, "needs data.pairing=atlas"),
        ({"root": one, "atlas": "c999", "pairing": "atlas"}, "there is no such scan"),
        ({"root": one, "weights": {"x": 1.0}}, "names 'x', which is no set that trains"),
        ({"root": one, "weights": "allike"}, "data.weights=allike is not valid"),
        ({"root": {"a": five, "b": six}, "test": {"c": one}}, r"\[5, 6\] landmarks make no pairs: data.weights=alike"),
        ({"root": one, "validation": 1}, "leaves no pair"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_data({"name": "prepared", **options})
