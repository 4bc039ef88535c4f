"""The files of prepared cases: what goes in comes out, and nothing half-written looks whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from regcascade.data.preprocessing.case_files import (
    PreparedCases,
    Record,
    case_file,
    read_case,
    read_record,
    write_case,
    write_manifest,
)

SIZE = (6, 5, 4)
AFFINE = np.diag([-2.0, 1.0, 3.0, 1.0]).tolist()
POINTS = torch.tensor([[1.5, 2.0, 3.0], [float("nan")] * 3])


def written(root, name="a", store="float32", labels=True, points=True):
    image = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    label_map = torch.zeros(1, *SIZE, dtype=torch.int16)
    label_map[0, 2:4] = 3
    source = {"image": "a.nii", "sha256": "0", "shape": list(SIZE), "affine": AFFINE}
    record = Record(
        name,
        list(SIZE),
        AFFINE,
        [3] if labels else None,
        2 if points else None,
        None,
        source,
        {"name": "generic"},
        store,
    )
    path = case_file(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_case(path, record, image, label_map if labels else None, POINTS if points else None)
    return record, image, label_map


@pytest.mark.parametrize(("store", "error"), [("float32", 0), ("float16", 3e-4), ("uint8", 2e-3)])
def test_what_is_written_is_read(store, error, tmp_path):
    record, image, labels = written(tmp_path, store=store)
    case = read_case(case_file(tmp_path, "a"))
    assert read_record(case_file(tmp_path, "a")) == record
    assert case.name == "a" and case.spacing == (2, 1, 3)
    assert case.image.dtype == torch.float32
    torch.testing.assert_close(case.image, image, rtol=0, atol=error)
    assert torch.equal(case.labels, labels) and case.labels.dtype == torch.int16
    torch.testing.assert_close(case.points, POINTS, equal_nan=True)


def test_a_case_without_labels_and_points_has_none(tmp_path):
    written(tmp_path, labels=False, points=False)
    case = read_case(case_file(tmp_path, "a"))
    assert case.labels is None and case.points is None


def test_the_layout_is_a_header_and_bare_arrays(tmp_path):
    """As documented: anybody can map the arrays without regcascade."""
    _, image, _ = written(tmp_path)
    path = case_file(tmp_path, "a")
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    begin, end = header["image"]["data_offsets"]
    mapped = np.memmap(path, np.float32, "r", 8 + length + begin, tuple(header["image"]["shape"]))
    assert end - begin == mapped.nbytes
    np.testing.assert_array_equal(mapped, image.numpy())
    assert json.loads(header["__metadata__"]["case"])["layout"] == 1


def test_the_manifest_lists_the_cases(tmp_path):
    records = [written(tmp_path, name, labels=name == "b")[0] for name in ("b", "a")]
    write_manifest(tmp_path, records, {3: "spleen"})
    cases = PreparedCases(tmp_path, prefix="set/")
    assert cases.names == ["set/a", "set/b"] and cases.label_names == {3: "spleen"}
    assert [cases.labelled(index) for index in range(2)] == [False, True]
    assert cases[1].name == "set/b"


def test_damage_is_told_by_name(tmp_path):
    record, *_ = written(tmp_path)
    with pytest.raises(ValueError, match=r"has no manifest\.json: run regcascade prepare"):
        PreparedCases(tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        PreparedCases(tmp_path / "none")
    write_manifest(tmp_path, [record], {3: "spleen"})
    manifest = tmp_path / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"layout": 1', '"layout": 0', 1))
    with pytest.raises(ValueError, match="has the layout 0, and this version reads 1"):
        PreparedCases(tmp_path)
    manifest.write_text(whole[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        PreparedCases(tmp_path)
    for cases in (7, ["a"], [1]):
        manifest.write_text(json.dumps({**json.loads(whole), "cases": cases}), encoding="utf-8")
        with pytest.raises(ValueError, match="is damaged"):
            PreparedCases(tmp_path)
    manifest.write_text(whole)
    path = case_file(tmp_path, "a")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a\.safetensors is no prepared case"):
        PreparedCases(tmp_path)[0]
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.safetensors is missing"):
        PreparedCases(tmp_path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"image": torch.zeros(2)}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() is None
    with pytest.raises(ValueError, match="is no prepared case"):
        read_case(tmp_path / "x.safetensors")


def arrays_of(path):
    with safe_open(path, framework="pt") as file:
        return load_file(path), json.loads(file.metadata()["case"])


def spoilt(part, change):
    def spoil(arrays, values):
        arrays[part] = change(arrays[part].clone())

    return spoil


def put(value, *place):
    def change(array):
        array[place] = value
        return array

    return change


def without(part):
    return lambda arrays, values: arrays.pop(part)


def said(**more):
    return lambda arrays, values: values.update(more)


SPOILT = {
    "NaN": (spoilt("image", put(torch.nan, 0, 1, 1, 1)), "values from nan to nan"),
    "constant": (spoilt("image", lambda image: image * 0 + 0.5), "values from 0.5 to 0.5, which must differ"),
    "out of range": (spoilt("image", put(1.5, 0, 1, 1, 1)), "to 1.5, which must differ, and be in 0..1"),
    "negative": (spoilt("image", put(-0.5, 0, 1, 1, 1)), "values from -0.5"),
    "2D": (spoilt("image", lambda image: image[..., 0]), r"its image is \[1, 6, 5\] of torch.float32, not"),
    "another shape": (spoilt("image", lambda image: image[:, 1:]), r"its image is \[1, 5, 5, 4\]"),
    "another type": (spoilt("image", lambda image: image.half()), "of torch.float16, not"),
    "no image": (without("image"), "is damaged: 'image'"),
    "negative labels": (spoilt("labels", lambda labels: put(-1, 0, 0)(labels.int())), "no whole numbers from 0 up"),
    "labels of another shape": (spoilt("labels", lambda labels: labels[:, 1:]), "on the grid of its image"),
    "broken labels": (spoilt("labels", lambda labels: labels + 0.5), "no whole numbers"),
    "unknown labels": (spoilt("labels", put(7, 0, 0)), "its record has other labels or landmarks"),
    "no labels": (without("labels"), "its record has other labels or landmarks"),
    "fewer points": (spoilt("points", lambda points: points[:1]), "its record has other labels or landmarks"),
    "points in 2D": (spoilt("points", lambda points: points[:, :2]), "its record has other labels or landmarks"),
    "a point outside": (spoilt("points", put(9, 0, 0)), "a landmark outside its image"),
    "a record of another layout": (said(layout=0), "layout 0, and this version reads 1"),
    "a record of another size": (said(size=[6, 5, 3]), "not the case that manifest.json lists: its 'size'"),
    "a record of another affine": (said(affine=np.eye(4).tolist()), "its 'affine' is another"),
    "a record without one": (said(affine=[[1, 0], [0, 1]]), "is no prepared case .*needs an invertible 4 x 4 affine"),
    "a record that is flat": (said(affine=np.diag([1.0, 0, 1, 1]).tolist()), "needs an invertible"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_cannot_train_is_told_when_a_case_is_read(tmp_path, case, unchecked):
    spoil, message = SPOILT[case]
    record, *_ = written(tmp_path)
    write_manifest(tmp_path, [record], {3: "spleen"})
    path = case_file(tmp_path, "a")
    arrays, values = arrays_of(path)
    spoil(arrays, values)
    save_file({key: array.contiguous() for key, array in arrays.items()}, path, {"case": json.dumps(values)})
    with pytest.raises(
        ValueError, match=rf"a\.safetensors .*{message}.* Delete it, and run regcascade prepare again\.$"
    ):
        PreparedCases(tmp_path)[0]


def test_files_that_changed_places_are_told(tmp_path):
    records = [written(tmp_path, name)[0] for name in "ab"]
    write_manifest(tmp_path, records, {3: "spleen"})
    first, second = (case_file(tmp_path, name) for name in "ab")
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    with pytest.raises(ValueError, match=r"a\.safetensors is not the case that manifest\.json lists: its 'name'"):
        PreparedCases(tmp_path)[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 7), ("name", "n" * 5000), ("name", "../a"), ("name", None), ("size", [6, 5]), ("size", "654"),
        ("affine", [["a"] * 4] * 4), ("affine", None), ("labels", ["3"]), ("labels", [-3]), ("labels", [4]),
        ("points", "2"), ("group", 3), ("source", {}), ("source", None), ("recipe", "generic"), ("store", "int8"),
        ("alignment", {"matrix": [[1]]}), ("alignment", {"matrix": np.eye(4).tolist()}), ("mine", 1),
    ],
)  # fmt: skip
def test_a_manifest_that_was_edited_is_told(tmp_path, key, value, unchecked):
    record, *_ = written(tmp_path)
    write_manifest(tmp_path, [record], {3: "spleen"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["cases"][0][key] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: .* Run regcascade prepare again") as told:
        PreparedCases(tmp_path)
    assert len(str(told.value)) < 500


def test_a_manifest_that_lists_a_case_twice_or_is_nested_deeply_is_told(tmp_path):
    record, *_ = written(tmp_path)
    write_manifest(tmp_path, [record, replace(record)], {3: "spleen"})
    with pytest.raises(ValueError, match="it lists a case twice"):
        PreparedCases(tmp_path)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="it is nested too deeply"):
        PreparedCases(tmp_path)
