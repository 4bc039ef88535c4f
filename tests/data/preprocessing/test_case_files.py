"""The files of prepared cases: what goes in comes out, and nothing half-written looks whole."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

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
    write_manifest(tmp_path, [record], {})
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
    from safetensors.torch import save_file

    save_file({"image": torch.zeros(2)}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() is None
    with pytest.raises(ValueError, match="is no prepared case"):
        read_case(tmp_path / "x.safetensors")
