"""Landmark files, and where preprocessing takes what they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_scans import SHAPE, oblique_affine, write_nifti

from regcascade.data.io.point_tables import read_points, read_table
from regcascade.data.io.raw_scan import Source
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.geometry.grid import Geometry

GRID = Geometry(SHAPE, oblique_affine((0.9, 1.2, 2.5)))
PREPROCESSING = Preprocessing(size=(16, 18, 12), fit="crop_pad", pad=0.0, percentiles=(0.0, 100.0))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "x,y,z\n1,2,3\n,,\n4.5,5,6\n",
        "1,2,3\nnan,nan,nan\n4.5,5,6",
        "\nid,z,Y,x\na,3,2,1\n\nc,6,5,4.5,\n\n",
        "\ufeffx,y,z\n1,2,3\n,,\n4.5,5,6\n",
    ],
    ids=["titled", "bare", "columns in another order", "with a byte order mark"],
)
def test_points_are_read_and_missing_ones_are_nan(tmp_path, text):
    points = read_points(written(tmp_path, text), GRID)
    wanted = torch.tensor([[1, 2, 3], [torch.nan] * 3, [4.5, 5, 6]])
    torch.testing.assert_close(points, wanted, equal_nan=True)


@pytest.mark.parametrize(
    "read", [lambda path: read_points(path, GRID).numpy().round(4), lambda path: read_table(path).points]
)
def test_a_blank_line_is_a_missing_point_so_that_later_ones_keep_their_number(tmp_path, read):
    for blank in ("", ",,", "nan,NA,"):
        points = read(written(tmp_path, f"\nx,y,z\n1,2,3\n{blank}\n4,5,6\n\n"))
        np.testing.assert_array_equal(points, [[1, 2, 3], [np.nan] * 3, [4, 5, 6]])
    points = read(written(tmp_path, 'note,Z,y,X\n"a,b",3,2,1,\n'))
    np.testing.assert_array_equal(points, [[1, 2, 3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n", "has no points"),
        ("", "it is empty"),
        ("x,y,z\n1,2\n", "line 2: '1,2' are no coordinates"),
        ("a,b,c\n1,2,3\n", "line 1: 'a,b,c' are no coordinates"),
        ("x,y,z\n10,12,14,1\n", "line 2 has 4 cells for 3 columns: '10,12,14,1'"),
        ("1,10,12,14\n2,20,25,20\n", "has 4 columns without titles: name them in its first line"),
        ("x,y,z\n1,inf,2\n", "line 2: '1,inf,2' are no coordinates"),
        (
            "x,y,z\n1,2,3\n-80.5,22,150\n4,5,6\n",
            r"landmark 2, \[-80\.\d+, 2\d\.\d+, 1[45]\d\.\d+\], lies outside .* not mm",
        ),
    ],
)
def test_what_is_no_list_of_voxels_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"points\.csv.*" + message):
        read_points(written(tmp_path, text), GRID)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.csv does not exist"):
        read_points(tmp_path / "nowhere.csv", GRID)
    (tmp_path / "image.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"image\.csv cannot be read"):
        read_points(tmp_path / "image.csv", GRID)


VOXELS = np.array([[1.0, 2, 3], [4.5, 5, 6]])
COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"


def fcsv(system: str | None, places: np.ndarray) -> str:
    """As Slicer 5 writes them, with a position in between that is not defined."""
    rows = [f'{k},{x},{y},{z},0,0,0,1,1,1,0,"F, {k}",,,' for k, (x, y, z) in enumerate(places.tolist())]
    rows = [f"{rows[0]}2,0", "7,0,0,0,0,0,0,1,1,1,0,F-7,,,0,0", rows[1]]
    stated = [] if system is None else [f"# CoordinateSystem = {system}"]
    return "\n".join(["# Markups fiducial file version = 5.2", *stated, COLUMNS, *rows, ""])


def markups(places: object, **more: object) -> str:
    points = [{"label": f"F-{k}", "position": place} for k, place in enumerate(places)]
    points.insert(1, {"label": "F-7", "position": [0, 0, 0], "positionStatus": "undefined"})
    return json.dumps({"markups": [{"type": "Fiducial", "controlPoints": points, **more}]})


@pytest.mark.parametrize(
    ("suffix", "system", "unit"),
    [
        ("fcsv", "LPS", "lps"), ("fcsv", "1", "lps"), ("fcsv", "RAS", "ras"), ("fcsv", "0", "ras"),
        ("mrk.json", "LPS", "lps"), ("mrk.json", "RAS", "ras"), ("mrk.json", None, "lps"),
    ],
)  # fmt: skip
def test_slicers_points_lie_where_slicer_shows_them(tmp_path, suffix, system, unit):
    places = GRID.to_world(VOXELS) * ([-1, -1, 1] if unit == "lps" else [1, 1, 1])
    path = tmp_path / f"points.{suffix}"
    named = {} if system is None else {"coordinateSystem": system, "coordinateUnits": ["mm", "UCUM", "millimeter"]}
    path.write_text(fcsv(system, places) if suffix == "fcsv" else markups(places.tolist(), **named))
    wanted = [VOXELS[0], [np.nan] * 3, VOXELS[1]]
    np.testing.assert_allclose(read_points(path, GRID).numpy(), wanted, atol=1e-4)
    table = read_table(path)
    assert table.unit == unit and table.titles == ["x", "y", "z"]
    np.testing.assert_array_equal(table.points[[0, 2]], places)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.fcsv", fcsv(None, VOXELS), "lacks the lines '# CoordinateSystem = LPS'"),
        ("a.fcsv", fcsv("IJK", VOXELS), "lacks the lines"),
        ("a.fcsv", "# CoordinateSystem = LPS\n1,2,3\n", "lacks the lines"),
        ("a.mrk.json", markups([[1, 2, 3]], coordinateSystem="IJK"), "no .mrk.json"),
        ("a.mrk.json", markups([[1, 2, 3]], coordinateUnits="um"), "no .mrk.json"),
        ("a.mrk.json", markups([[1, 2]]), "no .mrk.json"),
        ("a.mrk.json", markups([["a", 2, 3]]), "are no coordinates"),
        ("a.mrk.json", "[1]", "no .mrk.json"),
        ("a.mrk.json", json.dumps({"markups": [{}, {}]}), "no .mrk.json"),
        ("a.mrk.json", "[" * 100_000, "cannot be read as a table of points"),
        ("a.mrk.json", markups([[9000, 2, 3]]), "lies outside its image"),
    ],
)
def test_what_slicer_does_not_write_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_points(tmp_path / name, GRID)


@pytest.mark.parametrize("fit", ["crop_pad", "resample"])
@pytest.mark.parametrize("size", [(16, 18, 12), (12, 21, 8), (13, 9, 22), (7, 7, 7)])
def test_points_stay_where_their_tissue_goes(tmp_path, fit, size):
    """Each axis as an intensity: an image of coordinates, read at the preprocessed points, gives the raw ones."""
    preprocessing = replace(PREPROCESSING, fit=fit, size=size)
    points = torch.tensor([[5.0, 8.0, 5.0], [7.0, 9.0, 6.0], [6.0, 10.0, 4.0]])
    table = written(tmp_path, "\n".join(",".join(map(str, point)) for point in points.tolist()))
    image = write_nifti(tmp_path / "image.nii.gz", np.indices(SHAPE, dtype=np.float32)[0])
    after = preprocessing.read(Source("image", image, points=table)).points
    assert not after.isnan().any()
    for axis in range(3):
        coordinates = np.indices(SHAPE, dtype=np.float32)[axis]
        image = preprocessing.read(Source("x", write_nifti(tmp_path / f"{axis}.nii.gz", coordinates))).image[0]
        for before, (x, y, z) in zip(points, after.tolist(), strict=True):
            nearest = float(image[round(x), round(y), round(z)]) * (SHAPE[axis] - 1)
            step = SHAPE[axis] / size[axis] if fit == "resample" else 1.0
            assert nearest == pytest.approx(float(before[axis]), abs=0.51 * step)
            if fit == "crop_pad":
                assert nearest == pytest.approx(float(before[axis]), abs=1e-3)


def test_what_is_cut_off_is_missing(tmp_path):
    table = written(tmp_path, "0,9,5\n6,9,5\n")
    image = write_nifti(tmp_path / "image.nii.gz", np.indices(SHAPE, dtype=np.float32)[0])
    after = replace(PREPROCESSING, size=(5, 18, 12)).read(Source("image", image, points=table)).points
    assert after[0].isnan().all() and not after[1].isnan().any()
