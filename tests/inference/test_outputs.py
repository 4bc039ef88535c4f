"""The command on files: what it writes, that others can apply it, what it refuses."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from grids import write_scan
from numpy.testing import assert_allclose

from regcascade.cascades.checkpoint import CHECKPOINT_KEY
from regcascade.cli.main import main
from regcascade.data.io.transforms import read_transform
from regcascade.geometry.grid import voxels_of
from regcascade.geometry.transform import Transform


def command(phantoms, checkpoint, out, *more):
    scans = [str(phantoms / f"{role}.nii.gz") for role in ("fixed", "moving")]
    main(["register", *scans, "--checkpoint", str(checkpoint), "--out", str(out), *map(str, more)])


def all_beside(folder):
    return [
        f"--{role}-{kind}={folder / f'{role}_{kind}'}{'.csv' if kind == 'points' else '.nii.gz'}"
        for role in ("fixed", "moving")
        for kind in ("labels", "points")
    ]


@pytest.fixture(scope="module")
def written(phantoms, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "result"
    command(phantoms, checkpoint, out, *all_beside(phantoms), "--refine", 15, "--format", "learn2reg")
    return out


def test_the_folder_holds_what_is_promised_and_nothing_half_made(written, phantoms):
    report = json.loads((written / "report.json").read_text(encoding="utf-8"))
    names = {path.name for path in written.iterdir()}
    assert names == set(report["files"]) and {
        "moved.nii.gz", "moved_labels.nii.gz", "moved_points.csv", "displacement.nii.gz", "inverse_displacement.nii.gz",
        "transform.h5", "jacobian.nii.gz", "registration.png", "report.json", "disp_fixed_moving.npz",
    } <= names  # fmt: skip
    assert [path.name for path in written.parent.iterdir()] == ["result"]
    fixed, moved = nibabel.load(phantoms / "fixed.nii.gz"), nibabel.load(written / "moved.nii.gz")
    assert moved.shape == fixed.shape and moved.get_data_dtype() == np.int16
    assert_allclose(moved.affine, fixed.affine, atol=1e-4)
    assert report["landmark_distance_mm"]["after"] < report["landmark_distance_mm"]["initial"]
    assert {"reading", "networks", "refining", "inverting"} <= set(report["seconds"])
    assert len(report["checkpoint_sha256"]) == 64 and report["inverse"]["residual_mm_max"] < 0.01


@pytest.mark.parametrize("name", ["displacement.nii.gz", "transform.h5"])
def test_simpleitk_applies_it_as_it_is(written, phantoms, name):
    fixed, moving = (sitk.ReadImage(str(phantoms / f"{role}.nii.gz"), sitk.sitkFloat32) for role in ("fixed", "moving"))
    if name.endswith(".h5"):
        transform = sitk.ReadTransform(str(written / name))
    else:
        transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(written / name), sitk.sitkVectorFloat64))
    theirs = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, float(voxels_of(moving).min()))
    ours = sitk.ReadImage(str(written / "moved.nii.gz"))
    differing = np.abs(voxels_of(theirs) - voxels_of(ours)) > 0.6  # ours is rounded to int16
    assert differing.mean() < 1e-3  # where rounding says in or out at the border of the moving scan


def test_moved_landmarks_are_where_the_inverse_takes_them(written, phantoms):
    moved = np.genfromtxt(written / "moved_points.csv", delimiter=",", names=True)
    transform = read_transform(written / "transform.h5")
    places = np.stack([moved[f"{axis}_ras_mm"] for axis in "xyz"], 1)
    source = np.genfromtxt(phantoms / "moving_points.csv", delimiter=",", skip_header=1)
    known = ~np.isnan(places).any(1)
    assert known.any()
    back = transform.moving.to_voxels(transform.points_to_moving(places[known]))
    assert_allclose(back, source[known], atol=0.01)
    assert_allclose(np.stack([moved[axis] for axis in "xyz"], 1), transform.fixed.to_voxels(places), atol=1e-3)


def test_learn2regs_displacement_is_from_voxel_to_voxel(written):
    transform = read_transform(written / "transform.h5")
    field = np.asarray(nibabel.load(written / "disp_fixed_moving.nii.gz").dataobj)
    voxels = np.array([[10, 12, 9], [20, 5, 17]])
    there = transform.moving.to_voxels(transform.points_to_moving(transform.fixed.to_world(voxels.astype(float))))
    assert_allclose(field[tuple(voxels.T)], there - voxels, atol=1e-3)
    with np.load(written / "disp_fixed_moving.npz", allow_pickle=False) as halves:
        assert halves["arr_0"].dtype == np.float16 and halves["arr_0"].shape == (3, 16, 14, 15)


@pytest.mark.usefixtures("no_picture")
def test_results_are_kept_unless_told_to_overwrite(written, phantoms, checkpoint, tmp_path, capsys):
    before = (written / "report.json").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        command(phantoms, checkpoint, written)
    assert "--overwrite" in capsys.readouterr().err and (written / "report.json").stat().st_mtime_ns == before
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(SystemExit):
        command(phantoms, checkpoint, tmp_path, "--overwrite")
    assert "will not be overwritten" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "mine.txt").is_file()


@pytest.mark.usefixtures("no_picture")
def test_folding_beyond_the_threshold_is_a_status_and_loses_nothing(phantoms, checkpoint, tmp_path, monkeypatch):
    command(phantoms, checkpoint, tmp_path / "fine", "--jacobian-threshold", 100)
    monkeypatch.setattr(Transform, "jacobian_det", lambda self: np.full(self.fixed.shape, -1, np.float32))
    with pytest.raises(SystemExit) as status:
        command(phantoms, checkpoint, tmp_path / "folded", "--jacobian-threshold", 5)
    assert status.value.code == 1 and (tmp_path / "folded" / "report.json").is_file()


def test_an_interrupted_run_leaves_nothing(phantoms, checkpoint, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("regcascade.inference.outputs.write_figure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(phantoms, checkpoint, tmp_path / "result")
    assert not list(tmp_path.iterdir())


def table(folder, *rows):
    path = folder / "pairs.csv"
    path.write_text("\n".join(["name,fixed,moving,moving_labels", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.usefixtures("no_picture")
def test_many_pairs_go_on_past_a_bad_one_and_are_not_done_twice(phantoms, checkpoint, tmp_path, capsys):
    (tmp_path / "broken.nii.gz").write_bytes((phantoms / "fixed.nii.gz").read_bytes()[:500])
    fixed, moving = phantoms / "fixed.nii.gz", phantoms / "moving.nii.gz"
    pairs = table(
        tmp_path,
        f"bad,{fixed},{tmp_path / 'broken.nii.gz'},",
        f"good,{fixed},{moving},{phantoms / 'moving_labels.nii.gz'}",
    )
    arguments = ["register", "--pairs", str(pairs), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
    for times in range(2):
        with pytest.raises(SystemExit) as status:
            main(arguments)
        said = capsys.readouterr()
        assert status.value.code == 1 and "1 of 2 pairs failed: bad" in said.err
        assert ("done before" in said.out) == (times == 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]
    assert (tmp_path / "out" / "good" / "moved_labels.nii.gz").is_file()


@pytest.mark.usefixtures("no_picture")
def test_a_folder_of_pairs(phantoms, checkpoint, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for file in ("fixed.nii.gz", "moving.nii.gz", "moving_points.csv"):
            (tmp_path / "in" / name / file).write_bytes((phantoms / file).read_bytes())
    out = tmp_path / "out"
    main(["register", "--pairs", str(tmp_path / "in"), "--checkpoint", str(checkpoint), "--out", str(out)])
    assert all((out / name / "moved_points.csv").is_file() for name in ("a", "b"))


def volume(path, shape=(20, 20, 20), spacing=1.0, value=None):
    voxels = np.random.default_rng(0).random(shape, dtype=np.float32) if value is None else np.full(shape, value, "f4")
    return write_scan(path, voxels, np.diag([spacing, spacing, spacing, 1.0]))


BAD = {
    "four axes": (lambda p: volume(p / "x.nii.gz", (9, 9, 9, 2)), "4 axes"),
    "two axes": (lambda p: volume(p / "x.nii.gz", (20, 20)), "2 axes"),
    "metres": (lambda p: volume(p / "x.nii.gz", spacing=0.001), "in millimetres"),
    "micrometres": (lambda p: volume(p / "x.nii.gz", spacing=1000.0), "in millimetres"),
    "constant": (lambda p: volume(p / "x.nii.gz", value=3.0), "is constant"),
    "NaN": (lambda p: volume(p / "x.nii.gz", value=np.nan), "NaN"),
    "missing": (lambda p: p / "none.nii.gz", "does not exist"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_a_bad_scan_is_named(kind, role, phantoms, checkpoint, tmp_path, capsys):
    make, message = BAD[kind]
    scans = {name: str(phantoms / f"{name}.nii.gz") for name in ("fixed", "moving")} | {role: str(make(tmp_path))}
    with pytest.raises(SystemExit) as status:
        main(["register", *scans.values(), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert status.value.code == 1 and message in said and scans[role] in said.replace(" ", "")
    assert not (tmp_path / "out").exists()


def mistakes(phantoms, checkpoint, folder):
    """Arguments after `register`, and what is said of them."""
    fixed, moving = str(phantoms / "fixed.nii.gz"), str(phantoms / "moving.nii.gz")
    model, out = ["--checkpoint", str(checkpoint)], ["--out", str(folder / "out")]
    empty = write_scan(folder / "empty.nii.gz", np.zeros((32, 28, 30), np.uint8), nibabel.load(fixed).affine)
    (folder / "file").write_text("", encoding="utf-8")
    unsaid = torch.load(checkpoint, weights_only=True)
    unsaid[CHECKPOINT_KEY]["preprocessing"] = {"size": [20, 18, 16], "recipe": None}
    torch.save(unsaid, folder / "unsaid.ckpt")
    unknown = folder / "unknown.csv"
    unknown.write_text(f"fixed,moved\n{fixed},{moving}\n", encoding="utf-8")
    return {
        "no moving scan": ([fixed, *model, *out], "FIXED and MOVING"),
        "swapped with the checkpoint": ([fixed, str(checkpoint), *model, *out], "cannot be read as an image"),
        "an image as checkpoint": ([fixed, moving, "--checkpoint", fixed, *out], "checkpoint"),
        "empty mask": ([fixed, moving, *model, *out, "--fixed-mask", str(empty)], "empty mask"),
        "labels of another grid": (
            [fixed, moving, *model, *out, "--fixed-labels", str(phantoms / "moving_labels.nii.gz")], "has the shape"),
        "an image as labels": ([fixed, moving, *model, *out, "--moving-labels", fixed], "has the shape"),
        "a file as folder": ([fixed, moving, *model, "--out", str(folder / "file")], "is a file"),
        "below a file": ([fixed, moving, *model, "--out", str(folder / "file" / "x")], "cannot be written"),
        "unknown device": ([fixed, moving, *model, *out, "--device", "abacus"], "--device abacus"),
        "no repeats": ([fixed, moving, *model, *out, "-r", "0"], "r=0"),
        "threshold": ([fixed, moving, *model, *out, "--jacobian-threshold", "101"], "0 to 100"),
        "recipe unsaid": ([fixed, moving, "--checkpoint", str(folder / "unsaid.ckpt"), *out], "--recipe"),
        "options of no recipe": ([fixed, moving, *model, *out, "--set", "size=[20,18,16]"], "--recipe"),
        "scans beside a table": ([fixed, moving, "--pairs", str(unknown), *model, *out], "leave FIXED out"),
        "unknown column": (["--pairs", str(unknown), *model, *out], "column moved"),
    }  # fmt: skip


@pytest.mark.parametrize("case", range(15))
def test_a_mistake_ends_with_one_clear_error(case, phantoms, checkpoint, tmp_path, capsys):
    arguments, message = list(mistakes(phantoms, checkpoint, tmp_path).values())[case]
    with pytest.raises(SystemExit) as status:
        main(["register", *arguments])
    said = " ".join(capsys.readouterr().err.split())
    assert status.value.code == 1 and said.startswith("Error:") and message in said
    assert not (tmp_path / "out").exists()
