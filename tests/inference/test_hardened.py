"""Odd scans, odd labels, odd folders: what must neither fail, nor mislead, nor lose what was there."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from grids import SIZE, oblique, write_scan
from numpy.testing import assert_allclose

from regcascade.cli.main import main
from regcascade.data.preprocessing.recipes import Brain, Generic, Liver
from regcascade.geometry.grid import voxels_of
from regcascade.inference import RegisterOptions, ScanFiles, register
from regcascade.inference.model import Trained, recipe_of
from regcascade.inference.outputs import check_folder, write_registration
from regcascade.inference.pair_list import read_pairs
from regcascade.inference.scans import open_scan

pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.fixture(scope="module")
def trained(checkpoint):
    return Trained.of(checkpoint)


@pytest.fixture
def scans(phantoms):
    return phantoms / "fixed.nii.gz", phantoms / "moving.nii.gz"


def test_labels_of_any_size_are_kept_and_measured(phantoms, scans, trained, tmp_path):
    times, large, small = 1_000_000_000, [], []
    for scan, role in zip(scans, ("fixed", "moving"), strict=True):
        labels = nibabel.load(phantoms / f"{role}_labels.nii.gz")
        voxels = np.asarray(labels.dataobj).astype(np.uint32) * np.uint32(times)
        voxels[voxels > 4 * times] = 0
        large.append(ScanFiles(scan, labels=write_scan(tmp_path / f"{role}.nii.gz", voxels, labels.affine)))
        small.append(ScanFiles(scan, labels=phantoms / f"{role}_labels.nii.gz"))
    found, wanted = (register(*given, trained).report["dice_after"] for given in (large, small))
    assert {"1000000000", "2000000000"} <= set(found)
    assert all(found[str(int(label) * times)] == wanted[label] for label in wanted.keys() & {"1", "2", "3", "4"})


def test_landmarks_that_do_not_correspond_are_told_before_any_work(phantoms, scans, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("regcascade.inference.pipeline.prepare_pair", lambda *_: pytest.fail("worked already"))
    (tmp_path / "one.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    given = ScanFiles(scans[0], points=tmp_path / "one.csv"), ScanFiles(scans[1], points=phantoms / "moving_points.csv")
    with pytest.raises(ValueError, match="fixed has 1 landmarks and moving"):
        register(*given, trained)


def test_what_fills_the_moved_scan_changes_no_measure(scans, trained):
    usual, filled = (
        register(*reversed(scans), trained, RegisterOptions(initial="centres", fill=fill)) for fill in (None, 3000.0)
    )
    assert filled.report["cc_after"] == usual.report["cc_after"]
    assert not np.array_equal(voxels_of(filled.moved), voxels_of(usual.moved))


def test_the_start_is_measured_as_the_end_is(scans, checkpoint):
    # Both are rounded to the scan's whole numbers, so that networks that do nothing change nothing.
    still = Trained.of(checkpoint)
    with torch.no_grad():
        for parameter in still.cascade.parameters():
            parameter.zero_()
    report = register(*scans, still).report
    assert report["displacement_mm"]["max"] > 1 and report["cc_initial"] == pytest.approx(report["cc_after"], abs=2e-5)
    assert report["warnings"] == []


def test_a_thin_scan_between_the_probes_overlaps(trained, tmp_path):
    voxels = np.random.default_rng(0).random((60, 50, 55), dtype=np.float32)
    fixed = write_scan(tmp_path / "fixed.nii.gz", voxels, oblique(voxels.shape, (4.0, 4.0, 4.0), 0.0))
    affine = oblique((60, 50, 2), (4.0, 4.0, 0.5), 0.0)
    for place in (2.5, 11.0, 21.0):  # mm; the probes are 9 mm apart
        affine[2, 3] = place
        thin = write_scan(tmp_path / "thin.nii.gz", voxels[..., :2].copy(), affine)
        report = register(fixed, thin, trained, RegisterOptions(initial="none")).report
        assert any("of the fixed scan's field lies in the moving one's" in warning for warning in report["warnings"])


@pytest.mark.parametrize("initial", ["moments", "affine"])
def test_what_the_networks_grid_cuts_off_draws_no_initial_map(initial, scans, trained, tmp_path):
    image = nibabel.load(scans[0])
    far = image.affine.copy()
    far[:3, 3] += [70, -40, 55]
    moving = write_scan(tmp_path / "far.nii.gz", np.asarray(image.dataobj), far)
    cutting = replace(trained, recipe=Generic(size=(16, 16, 16), orientation="LPS", percentiles=(0.0, 100.0)))
    result = register(scans[0], moving, cutting, RegisterOptions(initial=initial))
    assert_allclose(result.transform.affine @ [0, 0, 0, 1], [70, -40, 55, 1], atol=0.2)


def test_a_whole_scan_takes_no_more_memory_than_its_voxels(trained, tmp_path):
    shape = (64, 48, 6)
    voxels = np.random.default_rng(0).random(shape, dtype=np.float32)
    turned = oblique(shape, (0.5, 0.7, 5.0), 20.0) @ np.eye(4)[[1, 2, 0, 3]]
    scan = open_scan(ScanFiles(write_scan(tmp_path / "flat.nii.gz", voxels, turned)))
    image = replace(trained, recipe=Generic(size=SIZE, percentiles=(0.0, 100.0))).prepare(scan, whole=True)
    assert image.numel() < 3.5 * voxels.size and int((image > 0).sum()) == int((voxels > voxels.min()).sum())


def test_masks_that_a_recipe_needs_or_does_not_take_are_told(phantoms, scans, trained):
    masked, plain = (open_scan(ScanFiles(scans[0], mask=mask)) for mask in (phantoms / "fixed_labels.nii.gz", None))
    with pytest.raises(ValueError, match="--fixed-mask"):
        replace(trained, recipe=Brain(size=SIZE, mask="file")).prepare(plain)
    with pytest.raises(ValueError, match="leave its mask out"):
        replace(trained, recipe=Liver(size=SIZE)).prepare(masked)
    one, other = (replace(trained, recipe=Brain(size=SIZE, mask=mask)).prepare(masked) for mask in ("none", "file"))
    assert torch.equal(one.as_tensor(), other.as_tensor())


def test_checkpoints_of_other_versions_are_read_as_far_as_they_go(scans, trained):
    made = {"size": list(SIZE), "fit": "resample", "intensity": "percentiles", "percentiles": [0, 100]}
    assert recipe_of({"preprocessing": made}, None) == Generic(size=SIZE, fit="resample", percentiles=(0.0, 100.0))
    newer = replace(trained, loss={"smoothness": 0.1, "magic": 1.0})
    with pytest.raises(ValueError, match="no option 'magic'"):
        register(*scans, newer, RegisterOptions(refine=1))


def test_networks_that_diverged_are_told(scans, checkpoint):
    broken = Trained.of(checkpoint)
    with torch.no_grad():
        for parameter in broken.cascade.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"flow that is not finite.*checkpoint"):
        register(*scans, broken)


@pytest.fixture
def folder(scans, trained, tmp_path):
    write_registration(register(*scans, trained), tmp_path / "out")
    return tmp_path / "out"


def test_what_else_a_folder_holds_is_never_overwritten(folder, scans, checkpoint, capsys):
    arguments = ["register", *map(str, scans), "--checkpoint", str(checkpoint), "--out", str(folder), "--overwrite"]
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(arguments)
    assert "(notes.txt)" in capsys.readouterr().err and (folder / "notes.txt").is_file()
    (folder / "notes.txt").unlink()
    main(arguments)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_the_old_result_stays_until_the_new_one_has_its_place(folder, scans, trained, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result, rename = register(*scans, trained), Path.rename

    def full(path, target):
        if path.name == ".out.part":
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(ValueError, match="no space left"):
        write_registration(result, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_link_to_a_folder_leads_there(folder, scans, trained):
    link = folder.parent / "link"
    link.symlink_to(folder)
    write_registration(register(*reversed(scans), trained), link)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert link.is_symlink() and report["fixed"] == "moving"


def test_the_folder_one_is_in_is_no_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a folder of its own"):
        check_folder(Path(), overwrite=False)
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_a_pair_is_named_after_no_folder_above(tmp_path):
    (tmp_path / "pairs.csv").write_text("name,fixed,moving\n..,a.nii,b.nii\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must be that of one folder"):
        read_pairs(tmp_path / "pairs.csv")


def test_a_pair_at_which_a_library_gives_up_stops_no_other(scans, checkpoint, tmp_path, monkeypatch, capsys):
    rows = [f"{name},{scans[0]},{scans[1]}" for name in ("a", "b ü")]
    (tmp_path / "pairs.csv").write_text("\n".join(["name,fixed,moving", *rows]), encoding="utf-8")
    calls = []

    def sometimes(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("out of luck")
        return register(*arguments)

    monkeypatch.setattr("regcascade.cli.commands.register.register", sometimes)
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        main(["register", "--pairs", str(tmp_path / "pairs.csv"), "--checkpoint", str(checkpoint), "--out", str(out)])
    assert "1 of 2 pairs failed: a." in capsys.readouterr().err and (out / "b ü" / "report.json").is_file()
