"""Raw scans to prepared cases: what is kept, what is redone, what a bad scan does; and the command."""

import csv
import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
from toy_scans import oblique_affine, write_dicom

import regcascade.data.io.raw_scan
import regcascade.data.preprocessing.prepare
from regcascade.cli.main import main
from regcascade.data import build_data
from regcascade.data.io.scan_lists import Source, read_table
from regcascade.data.preprocessing.case_files import PreparedCases, case_file, read_case, read_record
from regcascade.data.preprocessing.prepare import prepare

SHAPE = (18, 22, 20)
RECIPE = {"name": "generic", "size": [16, 18, 16], "fit": "resample"}


def blob(centre, shape=SHAPE, width=2.0):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.exp(-((grid - np.array(centre)) ** 2).sum(-1) / (2 * width**2)).astype(np.float32)


def raw(root, name, centre=(6, 12, 9), affine=None, labels=True):
    """A bright blob, its label, and a landmark at its centre."""
    root.mkdir(exist_ok=True)
    affine = oblique_affine((1.0, 1.5, 2.0)) if affine is None else affine
    image = root / f"{name}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(100 * blob(centre), affine), image)
    label = root / f"{name}_seg.nii.gz"
    nibabel.save(nibabel.Nifti1Image((blob(centre) > 0.5).astype(np.uint8) * 3, affine), label)
    points = root / f"{name}.csv"
    points.write_text("x,y,z\n{},{},{}\n,,\n".format(*centre))
    return Source(name, image, label if labels else None, points=points)


def test_a_case_keeps_what_lies_where(tmp_path):
    source = raw(tmp_path / "raw", "a")
    (outcome,) = prepare([source], tmp_path / "out", RECIPE, label_names={3: "blob"})
    assert outcome.outcome == "prepared"
    path = case_file(tmp_path / "out", "a")
    case, record = read_case(path), read_record(path)
    assert case.image.shape == (1, 16, 18, 16) and case.image.min() >= 0 and case.image.max() <= 1
    centre = (case.labels[0] == 3).nonzero().double().mean(0)
    np.testing.assert_allclose(case.points[0], centre, atol=0.3)
    assert case.image[(0, *centre.round().long())] == 1
    assert case.points[1].isnan().all()
    assert record.labels == [3]
    # The affine of the case takes the landmark to where the raw scan's takes it.
    there = np.array(record.affine) @ np.append(case.points[0].numpy(), 1)
    np.testing.assert_allclose(there, oblique_affine((1.0, 1.5, 2.0)) @ [6, 12, 9, 1], atol=1e-3)
    assert PreparedCases(tmp_path / "out").label_names == {3: "blob"}
    json.loads((tmp_path / "out/manifest.json").read_text())


def test_a_stopped_run_goes_on_and_only_what_changed_is_done_again(tmp_path):
    sources = [raw(tmp_path / "raw", name) for name in "abc"]
    out = tmp_path / "out"
    prepare(sources[:2], out, RECIPE)
    stamps = {name: case_file(out, name).stat().st_mtime_ns for name in "ab"}
    (out / "manifest.json").unlink()  # as if killed before the end
    (out / "cases/.c.safetensors.part").write_text("half")
    raw(tmp_path / "raw", "b", centre=(9, 9, 9))
    outcomes = {outcome.name: outcome.outcome for outcome in prepare(sources, out, RECIPE)}
    assert outcomes == {"a": "kept", "b": "prepared", "c": "prepared"}
    assert case_file(out, "a").stat().st_mtime_ns == stamps["a"]
    assert case_file(out, "b").stat().st_mtime_ns != stamps["b"]
    other = prepare(sources, out, {**RECIPE, "size": [16, 16, 16]})
    assert {outcome.outcome for outcome in other} == {"prepared"}
    case_file(out, "a").write_bytes(case_file(out, "a").read_bytes()[:100])
    assert prepare(sources[:1], out, {**RECIPE, "size": [16, 16, 16]})[0].outcome == "prepared"


def test_a_bad_scan_is_left_out_and_told(tmp_path):
    good = raw(tmp_path / "raw", "good")
    constant, shape, elsewhere = (raw(tmp_path / "raw", name) for name in ("constant", "shape", "elsewhere"))
    affine = oblique_affine((1.0, 1.5, 2.0))
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.float32), affine), constant.image)
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 5), np.uint8), affine), shape.labels)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), affine + np.eye(4, k=3)), elsewhere.labels)
    outside = raw(tmp_path / "raw", "outside")
    outside.points.write_text("x,y,z\n6,12,40\n")
    missing = Source("missing", tmp_path / "nowhere.nii.gz")
    sources = [good, constant, shape, elsewhere, outside, missing]
    outcomes = {outcome.name: outcome for outcome in prepare(sources, tmp_path / "out", RECIPE)}
    assert outcomes["good"].outcome == "prepared"
    for name, reason in {
        "constant": "constant.nii.gz is constant", "shape": "has the shape (5, 5, 5)",
        "elsewhere": "does not lie where its image", "outside": "landmark 1, [6.0, 12.0, 40.0], lies outside",
        "missing": "does not exist",
    }.items():  # fmt: skip
        assert outcomes[name].outcome == "failed" and reason in outcomes[name].reason
    assert PreparedCases(tmp_path / "out").names == ["good"]
    with (tmp_path / "out/report.csv").open() as file:
        assert {row["name"]: row["outcome"] for row in csv.DictReader(file)}["shape"] == "failed"


def test_colours_and_complex_numbers_in_a_table_are_failed_cases_and_the_run_goes_on(tmp_path):
    raw(tmp_path / "raw", "good")
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name, voxels in (("colour", colour), ("complex", np.ones(SHAPE, np.complex64))):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "raw" / f"{name}.nii.gz")
    table = tmp_path / "raw" / "table.csv"
    table.write_text("name,image\na,colour.nii.gz\nb,complex.nii.gz\nc,good.nii.gz\n")
    outcomes = prepare(read_table(table), tmp_path / "out", RECIPE)
    assert [one.outcome for one in outcomes] == ["failed", "failed", "prepared"]
    for one, file in zip(outcomes, ("colour.nii.gz", "complex.nii.gz"), strict=False):
        assert file in one.reason and "give real numbers, one a voxel" in one.reason


def test_label_values_without_a_name_are_told(tmp_path):
    source = raw(tmp_path / "raw", "a")
    for _ in range(2):  # made anew, and kept
        (outcome,) = prepare([source], tmp_path / "out", RECIPE, label_names={1: "liver"})
        assert outcome.outcome == "failed" and "have the values [3]" in outcome.reason
        prepare([source], tmp_path / "out", RECIPE)
    (outcome,) = prepare([source], tmp_path / "out", {**RECIPE, "relabel": {3: 1}}, label_names={1: "liver"})
    assert outcome.outcome == "prepared" and read_record(case_file(tmp_path / "out", "a")).labels == [1]
    (outcome,) = prepare([source], tmp_path / "out", {**RECIPE, "relabel": {3: 1}}, label_names={1: "liver"})
    assert outcome.outcome == "kept"


def test_what_is_wrong_with_the_list_of_scans_is_left_out_and_told_too(tmp_path, capsys):
    raw(tmp_path / "raw", "a")
    (tmp_path / "raw/b_seg.nii.gz").write_bytes((tmp_path / "raw/a_seg.nii.gz").read_bytes())
    command = ["prepare", str(tmp_path / "raw"), "--images", "?.nii.gz", "--labels", "?_seg.nii.gz"]
    with pytest.raises(SystemExit) as end:
        main([*command, "--out", str(tmp_path / "out"), "--set", "size=[16,16,16]", "--workers", "1"])
    assert end.value.code == 1
    assert "b: " in (told := " ".join(capsys.readouterr().out.split())) and "labels without an image" in told
    assert PreparedCases(tmp_path / "out").names == ["a"]


def test_a_landmark_that_is_cut_off_is_missing(tmp_path):
    source = raw(tmp_path / "raw", "a")
    source.points.write_text("x,y,z\n9,11,10\n0,0,0\n", encoding="utf-8")
    recipe = {"name": "generic", "size": [8, 8, 8]}
    prepare([source], tmp_path / "out", recipe)
    points = read_case(case_file(tmp_path / "out", "a")).points
    assert points is not None and points.isnan().all(1).tolist() == [False, True]


def test_another_group_makes_a_case_anew(tmp_path):
    source = raw(tmp_path / "raw", "a")
    prepare([source], tmp_path / "out", RECIPE)
    (outcome,) = prepare([replace(source, group="pig")], tmp_path / "out", RECIPE)
    assert outcome.outcome == "prepared" and read_record(case_file(tmp_path / "out", "a")).group == "pig"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_stops_the_run_with_one_line(error, tmp_path, capsys, monkeypatch):
    for name in "ab":
        raw(tmp_path / "raw", name)

    def write_bytes(path, data):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(SystemExit) as end:
        main(
            ["prepare", str(tmp_path / "raw"), "--images", "?.nii.gz", "--out", str(tmp_path / "out"), "--workers", "1"]
        )
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert f"out cannot be written ({os.strerror(error)})" in told and "Traceback" not in told
    assert not any((tmp_path / "out/cases").iterdir())


@pytest.mark.parametrize("error", [RuntimeError("no memory"), MemoryError(), PermissionError(errno.EACCES, "no")])
def test_whatever_reading_a_scan_raises_stops_nothing(error, tmp_path, monkeypatch):
    sources = [raw(tmp_path / "raw", name) for name in "ab"]
    read = regcascade.data.io.raw_scan.read_volume

    def failing(path, series=None):
        if path == sources[0].image:
            raise error
        return read(path, series)

    monkeypatch.setattr(regcascade.data.io.raw_scan, "read_volume", failing)
    assert [one.outcome for one in prepare(sources, tmp_path / "out", RECIPE)] == ["failed", "prepared"]


def test_a_worker_ends_once_its_main_process_does(monkeypatch):
    happened = []
    parent = SimpleNamespace(join=lambda: happened.append("parent ended"))
    monkeypatch.setattr(regcascade.data.preprocessing.prepare, "parent_process", lambda: parent)
    monkeypatch.setattr(os, "_exit", lambda status: happened.append("exit"))
    regcascade.data.preprocessing.prepare._end_with_parent()
    assert happened == ["parent ended", "exit"]


def test_excluded_names_are_left_out_and_must_exist(tmp_path):
    sources = [raw(tmp_path / "raw", name) for name in "ab"]
    assert [one.outcome for one in prepare(sources, tmp_path / "out", RECIPE, exclude=["a"])] == [
        "excluded",
        "prepared",
    ]
    assert PreparedCases(tmp_path / "out").names == ["b"]
    with pytest.raises(ValueError, match="has 'x', which is no scan's name"):
        prepare(sources, tmp_path / "out", RECIPE, exclude=["x"])


def test_processes_side_by_side_give_the_same(tmp_path):
    sources = [raw(tmp_path / "raw", name) for name in "abc"]
    prepare(sources, tmp_path / "one", RECIPE)
    prepare(sources, tmp_path / "two", RECIPE, workers=2)
    for name in "abc":
        assert case_file(tmp_path / "one", name).read_bytes() == case_file(tmp_path / "two", name).read_bytes()


def test_a_dicom_series_equals_its_nifti_twin(tmp_path):
    voxels = (1000 * blob((6, 12, 9))).astype(np.int16)
    affine = oblique_affine((0.7, 0.9, 2.2))
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "twin.nii.gz")
    sources = [
        Source("dicom", write_dicom(tmp_path / "series", voxels, affine)),
        Source("twin", tmp_path / "twin.nii.gz"),
    ]
    prepare(sources, tmp_path / "out", RECIPE)
    dicom, twin = PreparedCases(tmp_path / "out")
    np.testing.assert_allclose(dicom.image, twin.image, atol=1e-5)
    records = PreparedCases(tmp_path / "out").records
    np.testing.assert_allclose(records[0].affine, records[1].affine, atol=1e-3)


def test_the_command_prepares_and_data_prepared_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for name in "abcd":
        raw(tmp_path / "raw", name, centre=(6 + len(name), 12, 9))
    out = tmp_path / "out"
    command = ["prepare", str(tmp_path / "raw"), "--images", "?.nii.gz", "--labels", "?_seg.nii.gz", "--out", str(out)]
    main([*command, "--set", "size=[16,16,16]", "--label-names", "3=blob", "--workers", "1", "--store", "float16"])
    output = capsys.readouterr().out
    assert "4 scans" in output and "contact_sheet_001.png" in output
    assert (out / "contact_sheet_001.png").stat().st_size > 1000
    data = build_data({"name": "prepared", "root": str(out), "validation": 2, "num_workers": 0})
    assert data.label_names == {3: "blob"} and data.size == (16, 16, 16)
    batch = next(iter(data.val_dataloader()))
    assert batch["fixed_labels"].unique().tolist() == [0, 3]
    (tmp_path / "raw/a.nii.gz").write_text("broken")
    with pytest.raises(SystemExit) as end:
        main([*command, "--set", "size=[16,16,16]", "--label-names", "3=blob", "--workers", "1", "--store", "float16"])
    assert end.value.code == 1
    assert "a.nii.gz cannot be read" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "There is no nowhere"),
        (["."], "dataset.json"),
        ([".", "--images", "*.nii"], "nothing that matches"),
        (["scans.csv", "--set", "size"], "no KEY=VALUE"),
        (["scans.csv", "--recipe", "genric"], "Did you mean 'generic'"),
        (["scans.csv", "--set", "sise=[1,2,3]"], "has no option 'sise'"),
        (["scans.csv", "--set", "size=[1,2"], "--set size=[1,2 is no valid YAML"),
        (["scans.csv", "--recipe", "bad.yaml"], "bad.yaml cannot be read as YAML"),
        (["scans.csv", "--label-names", "one=liver"], "--label-names one=liver: give whole numbers"),
        (["scans.csv", "--labels", "*.nii"], "--labels needs --images"),
        (["scans.csv", "--exclude", "nofile"], "--exclude nofile cannot be read as a text file"),
        (["scans.csv", "--recipe", "none.yaml"], "none.yaml cannot be read (No such file"),
        (["many.h5"], "many.h5: HDF5 files are read by the JSON that lists their scans"),
        (["dataset.json"], "Of a Decathlon's dataset.json give the folder"),
        (["scans.csv", "--out", "scans.csv"], "scans.csv cannot be written"),
        (["scans.csv", "--workers", "0"], "workers=0 is not valid: give a whole number, 1 or more"),
        (["scans.csv", "--workers", "-1"], "workers=-1 is not valid"),
    ],
)
def test_bad_arguments_end_with_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans.csv").write_text("image\na.nii\n")
    (tmp_path / "many.h5").write_bytes(b"\x89HDF")
    (tmp_path / "dataset.json").write_text('{"training": []}')
    (tmp_path / "bad.yaml").write_text("name: [generic\n", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main(["prepare", "--out", "out", *arguments])
    assert end.value.code == 1
    assert message in capsys.readouterr().err
