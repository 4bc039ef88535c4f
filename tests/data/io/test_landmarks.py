"""Landmark files, and where preprocessing takes what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_scans import SHAPE, write_nifti

from regcascade.data.io.landmarks import read_points
from regcascade.data.preprocessing.standard import Preprocessing, points_after

PREPROCESSING = Preprocessing((16, 18, 12), "crop_pad", 0.0, "percentiles", (0.0, 100.0), (290.0, 120.0))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "x,y,z\n1,2,3\n,,\n4.5,5,6\n",
        "1,2,3\nnan,nan,nan\n4.5,5,6",
        "id,z,Y,x\na,3,2,1\n\nb,,,\nc,6,5,4.5\n",
        "\ufeffx,y,z\n1,2,3\n,,\n4.5,5,6\n",
    ],
    ids=["titled", "bare", "columns in another order", "with a byte order mark"],
)
def test_points_are_read_and_missing_ones_are_nan(tmp_path, text):
    points = read_points(written(tmp_path, text), SHAPE)
    wanted = torch.tensor([[1, 2, 3], [torch.nan] * 3, [4.5, 5, 6]])
    torch.testing.assert_close(points, wanted, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n", "has no landmarks"),
        ("", "has no landmarks"),
        ("x,y,z\n1,2\n", "'1,2' are no voxel coordinates"),
        ("a,b,c\n1,2,3\n", "'a,b,c' are no voxel coordinates"),
        ("x,y,z\n1,2,3\n-80.5,22,150\n4,5,6\n", r"landmark 2, \[-80\.5, 22\.0, 150\.0\], lies outside .* not mm"),
    ],
)
def test_what_is_no_list_of_voxels_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"points\.csv.*" + message):
        read_points(written(tmp_path, text), SHAPE)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.csv does not exist"):
        read_points(tmp_path / "nowhere.csv", SHAPE)
    (tmp_path / "image.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"image\.csv cannot be read"):
        read_points(tmp_path / "image.csv", SHAPE)


@pytest.mark.parametrize("fit", ["crop_pad", "resample"])
@pytest.mark.parametrize("size", [(16, 18, 12), (12, 21, 8), (13, 9, 22), (7, 7, 7)])
def test_points_stay_where_their_tissue_goes(tmp_path, fit, size):
    """Each axis as an intensity: an image of coordinates, read at the preprocessed points, gives the raw ones."""
    preprocessing = replace(PREPROCESSING, fit=fit, size=size)
    points = torch.tensor([[5.0, 8.0, 5.0], [7.0, 9.0, 6.0], [6.0, 10.0, 4.0]])
    after = points_after(points, SHAPE, preprocessing)
    assert not after.isnan().any()
    for axis in range(3):
        coordinates = np.indices(SHAPE, dtype=np.float32)[axis]
        image = preprocessing.read(write_nifti(tmp_path / f"{axis}.nii.gz", coordinates)).image[0]
        for before, (x, y, z) in zip(points, after.tolist(), strict=True):
            nearest = float(image[round(x), round(y), round(z)]) * (SHAPE[axis] - 1)
            step = SHAPE[axis] / size[axis] if fit == "resample" else 1.0
            assert nearest == pytest.approx(float(before[axis]), abs=0.51 * step)
            if fit == "crop_pad":
                assert nearest == pytest.approx(float(before[axis]), abs=1e-3)


def test_what_is_cut_off_is_missing():
    points = torch.tensor([[0.0, 9.0, 5.0], [6.0, 9.0, 5.0]])
    after = points_after(points, SHAPE, replace(PREPROCESSING, size=(5, 18, 12)))
    assert after[0].isnan().all() and not after[1].isnan().any()
