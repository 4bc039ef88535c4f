"""`regcascade apply` and `regcascade invert`: files in, files out, on grids that differ."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from regcascade.cli.main import main
from regcascade.data.io.images import read_header
from regcascade.data.io.itk_images import read_scan, write_scan
from regcascade.data.io.transforms import read_transform, write_transform
from regcascade.geometry.grid import Geometry, voxels_of
from regcascade.geometry.transform import Transform

AFFINE = np.array([[1.05, 0.06, 0, 2], [-0.05, 0.95, 0.04, -1], [0, -0.05, 1.02, 1], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def transform():
    oblique = np.array([[0.9, -0.4, 0, -8], [0.4, 0.9, 0, -10], [0, 0, 2.0, -12], [0, 0, 0, 1]])
    fixed = Geometry((18, 20, 13), oblique)
    moving = Geometry((22, 17, 24), np.array([[-1.2, 0, 0, 9], [0, 1.1, 0, -9], [0, 0, 1.0, -11], [0, 0, 0, 1]]))
    x, y, z = np.meshgrid(*map(np.arange, fixed.shape), indexing="ij")
    vectors = np.stack([np.sin(x / 4), np.cos(y / 5 + z / 3), np.sin(z / 4)], -1).astype(np.float32)
    return Transform(fixed, moving, AFFINE, vectors)


@pytest.fixture
def files(transform, tmp_path):
    write_transform(transform, tmp_path / "t.h5")
    write_transform(transform, tmp_path / "t.nii.gz")
    random = np.random.default_rng(0)
    write_scan(
        transform.moving.as_itk(random.integers(-90, 900, transform.moving.shape).astype(np.int16)),
        tmp_path / "i.nii.gz",
    )
    write_scan(
        transform.moving.as_itk(random.integers(0, 3, transform.moving.shape).astype(np.uint8)), tmp_path / "l.nrrd"
    )
    write_scan(transform.fixed.as_itk(random.normal(size=transform.fixed.shape).astype(np.float32)), tmp_path / "f.mha")
    return tmp_path


def run(folder, *arguments):
    main(
        [
            str(folder / each) if "." in each and not each.startswith("-") and "/" not in each else each
            for each in arguments
        ]
    )


def failing(capsys, folder, *arguments):
    with pytest.raises(SystemExit) as end:
        run(folder, *arguments)
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def columns(path, *names):
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([[float(row[name] or "nan") for name in names] for row in csv.DictReader(file)])


def well_inside(transform):
    """Voxels of the moving grid that lie between centres of the fixed one, where totals and parts agree."""
    index = np.stack(np.meshgrid(*map(np.arange, transform.moving.shape), indexing="ij"), -1).reshape(-1, 3)
    there = transform.fixed.to_voxels(transform.points_to_fixed(transform.moving.to_world(index.astype(float))))
    return ((there >= 0) & (there <= np.array(transform.fixed.shape) - 1)).all(1).reshape(transform.moving.shape)


def test_an_image_comes_onto_the_fixed_grid(transform, files):
    run(files, "apply", "t.h5", "i.nii.gz", "--out", "moved.nii.gz")
    moved, expected = read_scan(files / "moved.nii.gz"), transform.warp_image(read_scan(files / "i.nii.gz"))
    assert Geometry.of_image(moved).same_as(transform.fixed)
    assert moved.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(voxels_of(moved), voxels_of(expected))
    run(files, "apply", "t.nii.gz", "i.nii.gz", "--out", "total.nii.gz", "--fill", "-1000")
    total = voxels_of(read_scan(files / "total.nii.gz"))
    assert total.min() == -1000
    assert (np.abs(total - voxels_of(moved)) > 1).mean() < (total == -1000).mean() + 0.01


def test_labels_and_another_grid(transform, files):
    run(files, "apply", "t.h5", "l.nrrd", "--labels", "--out", "near.nrrd")
    run(
        files,
        "apply",
        "t.h5",
        "l.nrrd",
        "--labels",
        "--interpolation",
        "linear",
        "--like",
        "i.nii.gz",
        "--out",
        "linear.nrrd",
    )
    near, linear = read_scan(files / "near.nrrd"), read_scan(files / "linear.nrrd")
    labels = read_scan(files / "l.nrrd")
    np.testing.assert_array_equal(voxels_of(near), voxels_of(transform.warp_labels(labels)))
    np.testing.assert_array_equal(
        voxels_of(linear), voxels_of(transform.warp_labels(labels, "linear", read_header(files / "i.nii.gz")))
    )
    assert set(np.unique(voxels_of(linear))) == {0, 1, 2} and near.GetPixelID() == sitk.sitkUInt8


def test_the_other_way_is_by_the_inverse(transform, files, capsys):
    run(files, "apply", "t.h5", "f.mha", "--direction", "to-moving", "--out", "back.mha")
    back = read_scan(files / "back.mha")
    assert Geometry.of_image(back).same_as(transform.moving)
    expected = transform.inverse().transform.warp_image(read_scan(files / "f.mha"))
    np.testing.assert_array_equal(voxels_of(back), voxels_of(expected))
    assert "beyond the fixed scan" in capsys.readouterr().out
    assert "give --moving or --like" in failing(
        capsys, files, "apply", "t.nii.gz", "f.mha", "--direction", "to-moving", "--out", "again.mha"
    )
    run(files, "apply", "t.nii.gz", "f.mha", "--direction", "to-moving", "--like", "i.nii.gz", "--out", "again.mha")
    differing = np.abs(voxels_of(read_scan(files / "again.mha")) - voxels_of(back))
    inside = well_inside(transform)
    assert inside.mean() > 0.3
    assert differing[inside].max() < 0.02


def test_points_of_the_moving_scan_come_to_the_fixed_one(transform, files, capsys):
    truth = transform.fixed.to_world(np.array([[8.0, 9, 6], [5, 11, 4], [10.5, 7.25, 8]]))
    there = transform.points_to_moving(truth)
    voxels = transform.moving.to_voxels(there)
    lines = [f"{name},{x:.6f},{y:.6f},{z:.6f}" for name, (x, y, z) in zip(["tip, é", "b", "c"], voxels, strict=True)]
    lines[0] = '"tip, é"' + lines[0][len("tip, é") :]
    (files / "p.csv").write_text("\n".join(["name,X,Y,Z", *lines, "lost,,,"]) + "\n", encoding="utf-8")
    run(files, "apply", "t.h5", "p.csv", "--out", "moved.csv")
    found = columns(files / "moved.csv", "X", "Y", "Z")
    np.testing.assert_allclose(transform.fixed.to_world(found[:3]), truth, atol=0.001)
    assert np.isnan(found[3]).all()
    ras = columns(files / "moved.csv", "x_ras_mm", "y_ras_mm", "z_ras_mm")
    np.testing.assert_allclose(ras[:3], truth, atol=0.001)
    assert (files / "moved.csv").read_text(encoding="utf-8").splitlines()[1].startswith('"tip, é",')
    run(files, "apply", "t.h5", "moved.csv", "--direction", "to-moving", "--out", "back.csv")
    np.testing.assert_allclose(columns(files / "back.csv", "X", "Y", "Z")[:3], voxels, atol=0.001)
    np.testing.assert_allclose(columns(files / "back.csv", "x_ras_mm", "y_ras_mm", "z_ras_mm")[:3], there, atol=0.001)


@pytest.mark.parametrize(("unit", "signs"), [("ras", [1, 1, 1]), ("lps", [-1, -1, 1])])
def test_points_in_mm_need_no_grid(transform, files, unit, signs):
    truth = transform.fixed.to_world(np.array([[8.0, 9, 6], [5, 11, 4]]))
    lines = [",".join(map(str, point)) for point in (transform.points_to_moving(truth) * signs).tolist()]
    (files / "p.csv").write_text("\n".join(lines) + "\n")
    run(files, "apply", "t.nii.gz", "p.csv", "--points-unit", unit, "--out", "moved.csv")
    np.testing.assert_allclose(columns(files / "moved.csv", "x", "y", "z") * signs, truth, atol=0.001)
    stated = f"# CoordinateSystem = {unit.upper()}\n# columns = x,y,z\n"  # a file of Slicer's needs no unit
    (files / "p.fcsv").write_text(stated + "\n".join(lines) + "\n")
    run(files, "apply", "t.nii.gz", "p.fcsv", "--out", "slicers.csv")
    np.testing.assert_array_equal(columns(files / "slicers.csv", "x"), columns(files / "moved.csv", "x"))


def test_points_in_voxels_need_the_moving_grid(transform, files, capsys):
    (files / "p.csv").write_text("x,y,z\n9,9,11\n")
    assert "give --moving IMAGE" in failing(capsys, files, "apply", "t.nii.gz", "p.csv", "--out", "m.csv")
    run(files, "apply", "t.nii.gz", "p.csv", "--moving", "i.nii.gz", "--out", "m.csv")
    run(files, "apply", "t.h5", "p.csv", "--out", "m5.csv")
    np.testing.assert_allclose(columns(files / "m.csv", *"xyz"), columns(files / "m5.csv", *"xyz"), atol=0.001)


def test_inverting_tells_how_far_it_can_be_trusted(transform, files, capsys):
    run(files, "invert", "t.h5", "--out", "inverse.h5")
    output = capsys.readouterr().out
    assert "There and back misses by 0.000" in output and "has no inverse" in output
    inverse = read_transform(files / "inverse.h5")
    assert inverse.fixed.same_as(transform.moving) and inverse.moving.same_as(transform.fixed)
    np.testing.assert_array_equal(inverse.displacement, transform.inverse().transform.displacement)
    run(files, "invert", "t.nii.gz", "--moving", "i.nii.gz", "--out", "inverse.nii.gz")
    field = read_transform(files / "inverse.nii.gz")
    inside = well_inside(transform)
    np.testing.assert_allclose(field.displacement[inside], inverse.total()[inside], atol=0.01)
    run(files, "invert", "t.nii.gz", "--out", "guess.nii.gz")
    assert "the fixed scan's is taken" in capsys.readouterr().out.replace("\n", " ")


def test_files_are_not_replaced_unasked(files, capsys):
    for command in (["apply", "t.h5", "i.nii.gz"], ["invert", "t.h5"]):
        (files / "out.nii.gz").write_text("dear")
        assert "give --overwrite" in failing(capsys, files, *command, "--out", "out.nii.gz")
        assert (files / "out.nii.gz").read_text() == "dear"
        run(files, *command, "--out", "out.nii.gz", "--overwrite")
        assert (files / "out.nii.gz").stat().st_size > 1000


def test_an_image_of_another_space_is_told(transform, files, capsys):
    far = transform.moving.affine.copy()
    far[:3, 3] += 500
    write_scan(
        Geometry(transform.moving.shape, far).as_itk(np.ones(transform.moving.shape, np.uint8)), files / "far.nii"
    )
    error = failing(capsys, files, "apply", "t.h5", "far.nii", "--out", "out.nii")
    assert "nothing of" in error and "far.nii" in error and "another space" in error
    (files / "p.csv").write_text("x,y,z\n900,9,9\n900,8,7\n")
    error = failing(capsys, files, "apply", "t.h5", "p.csv", "--out", "out.csv")
    assert "none of the 2 points" in error and "--points-unit" in error
    assert not (files / "out.nii").exists() and not (files / "out.csv").exists()


BAD = {
    "--interpolation linear": (["i.nii.gz", "--interpolation", "linear", "--out", "o.nii.gz"], "Give --labels"),
    "--fill of labels": (["l.nrrd", "--labels", "--fill", "3", "--out", "o.nii.gz"], "--fill is not for"),
    "--points-unit of an image": (
        ["i.nii.gz", "--points-unit", "ras", "--out", "o.nii.gz"],
        "--points-unit is not for",
    ),
    "--labels of points": (["p.csv", "--labels", "--out", "o.csv"], "--labels is not for"),
    "points as an image": (["p.csv", "--out", "o.nii.gz"], "points are written as .csv"),
    "an image as points": (["i.nii.gz", "--out", "o.csv"], "an image is written as"),
    "no folder": (["i.nii.gz", "--out", "/nowhere/o.nii.gz"], "the folder /nowhere does not exist"),
    "no file": (["none.nii.gz", "--out", "o.nii.gz"], "none.nii.gz does not exist"),
    "no points": (["none.csv", "--out", "o.csv"], "none.csv does not exist"),
    "text": (["text.csv", "--out", "o.csv"], "are no coordinates"),
    "empty": (["empty.csv", "--out", "o.csv"], "cannot be read as a table"),
    "two columns": (["two.csv", "--out", "o.csv"], "has no points"),
    "all missing": (["missing.csv", "--out", "o.csv"], "has no points"),
    "fill": (["l.nrrd", "--fill", "-1", "--out", "o.nii.gz"], "fill=-1 is no uint8"),
    "no labels": (["half.mha", "--labels", "--out", "o.nii.gz"], "no label map"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_told(transform, files, capsys, case):
    for name, text in {
        "p": "x,y,z\n9,9,11\n", "text": "x,y,z\n1,2,three\n", "empty": "", "two": "1,2\n", "missing": "x,y,z\n,,\n"
    }.items():  # fmt: skip
        (files / f"{name}.csv").write_text(text)
    write_scan(transform.moving.as_itk(np.full(transform.moving.shape, 0.5, np.float32)), files / "half.mha")
    arguments, message = BAD[case]
    assert message in failing(capsys, files, "apply", "t.h5", *arguments)
    assert not (files / "o.nii.gz").exists() and not (files / "o.csv").exists()


def test_what_is_no_transform_is_told(files, capsys):
    assert "no displacement" in failing(capsys, files, "apply", "i.nii.gz", "t.h5", "--out", "o.nii.gz")
    assert "no displacement" in failing(capsys, files, "invert", "i.nii.gz", "--out", "o.h5")
    assert "is no transform" in failing(capsys, files, "invert", "t.h5", "--out", "o.npz")
