"""Transforms in files: that SimpleITK and ANTs give the same with them, and what is refused."""

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
from known_transforms import (
    FIXED_SHAPE,
    fixed_points,
    moved_by_numpy,
    places_of,
    scan,
    there,
)
from numpy.testing import assert_allclose, assert_array_equal

from regcascade.data.io.transforms import GROUP, knows_moving, read_transform, write_transform
from regcascade.geometry.grid import Geometry, voxels_of
from regcascade.geometry.transform import Transform


@pytest.mark.parametrize("name", ["t.h5", "t.tfm", "t.nii.gz", "t.nii", "t.mha", "t.nrrd"])
def test_simpleitk_gives_the_same_with_the_file(transform, name, tmp_path):
    image = scan(transform.moving)
    write_transform(transform, tmp_path / name)
    if name in ("t.h5", "t.tfm"):
        read = sitk.ReadTransform(tmp_path / name)
    else:
        read = sitk.DisplacementFieldTransform(sitk.ReadImage(tmp_path / name, sitk.sitkVectorFloat64))
    expected = sitk.Resample(image, transform.fixed.reference(), read, sitk.sitkLinear, 20.0)
    moved = voxels_of(transform.warp_image(image, fill=20.0))
    differing = np.abs(moved - voxels_of(expected)) > 0.02
    assert differing.mean() < 0.002  # float32 decides what lies within the border of the moving scan
    points = fixed_points(transform)
    by_itk = np.array([read.TransformPoint(point) for point in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    assert_allclose(transform.points_to_moving(points), by_itk, atol=1e-4)
    loaded = read_transform(tmp_path / name, transform.moving)
    assert_allclose(loaded.points_to_moving(points), moved_by_numpy(transform, points), atol=1e-4)
    assert loaded.fixed.same_as(transform.fixed)


def test_our_h5_needs_nothing_else_and_is_exact(transform, tmp_path):
    write_transform(transform, tmp_path / "t.h5")
    loaded = read_transform(tmp_path / "t.h5")
    assert_array_equal(loaded.displacement, transform.displacement)
    assert_array_equal(loaded.affine, transform.affine)
    assert_array_equal(loaded.moving.affine, transform.moving.affine)
    assert loaded.moving.shape == transform.moving.shape
    assert [path.name for path in tmp_path.iterdir()] == ["t.h5"]


def test_ants_gives_the_same_with_the_file(transform, tmp_path):
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    image = scan(transform.moving)
    for name, each in (("moving", image), ("fixed", scan(transform.fixed))):
        sitk.WriteImage(each, tmp_path / f"{name}.nii.gz")
    expected = voxels_of(transform.warp_image(image, fill=0.0))
    for name in ("t.h5", "t.nii.gz"):
        write_transform(transform, tmp_path / name)
        images = (ants.image_read(str(tmp_path / f"{which}.nii.gz")) for which in ("fixed", "moving"))
        moved = ants.apply_transforms(*images, transformlist=[str(tmp_path / name)], interpolator="linear")
        assert (np.abs(moved.numpy() - expected) > 0.05).mean() < 0.005


def test_the_known_map_survives_saving_inverting_and_composing(transform, tmp_path):
    """There by the transform, back by the inverse of the one that was read again: nothing has moved."""
    write_transform(transform, tmp_path / "t.h5")
    inverse = read_transform(tmp_path / "t.h5").inverse()
    write_transform(inverse.transform, tmp_path / "inverse.h5")
    back = read_transform(tmp_path / "inverse.h5")
    nothing = transform.compose(back)  # the moving scan onto the fixed one and back, on the moving grid
    places = places_of(transform.moving)
    moved = there(nothing)
    assert_allclose(moved[inverse.reached], places[inverse.reached], atol=2e-3)


def test_a_composite_of_somebody_elses_is_read(transform, tmp_path):
    field = sitk.DisplacementFieldTransform(transform.itk().GetNthTransform(1))
    rigid = sitk.Euler3DTransform((5.0, 3.0, 1.0), 0.1, -0.2, 0.15, (2.0, 1.0, -3.0))
    scale = sitk.AffineTransform([1.1, 0, 0.1, 0, 0.9, 0, 0, 0, 1], [1.0, 2, 3], [9.0, 9, 9])
    chain = sitk.CompositeTransform([rigid, sitk.CompositeTransform([scale, field])])
    points = fixed_points(transform)
    expected = np.array([chain.TransformPoint(point) for point in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    chain.FlattenTransform()
    for name in ("other.h5", "other.tfm"):
        sitk.WriteTransform(chain, tmp_path / name)
        loaded = read_transform(tmp_path / name)
        assert_allclose(loaded.points_to_moving(points), expected, atol=1e-4)
        assert loaded.moving.same_as(transform.fixed)
    sitk.WriteTransform(field, tmp_path / "field.h5")
    assert_allclose(read_transform(tmp_path / "field.h5").affine, np.eye(4))


def test_files_that_are_no_transform_are_told(transform, tmp_path):
    field = sitk.DisplacementFieldTransform(transform.itk().GetNthTransform(1))
    sitk.WriteTransform(sitk.CompositeTransform([field, sitk.TranslationTransform(3)]), tmp_path / "order.h5")
    sitk.WriteTransform(sitk.Euler3DTransform(), tmp_path / "rigid.tfm")
    sitk.WriteImage(scan(transform.fixed), tmp_path / "image.nii.gz")
    sitk.WriteImage(sitk.Image([4, 4, 4, 3], sitk.sitkFloat32), tmp_path / "4d.nii.gz")
    (tmp_path / "text.h5").write_text("no transform")
    (tmp_path / "text.tfm").write_text("no transform")
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "model.ckpt").write_text("")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["volume"] = np.zeros(3)
    vectors = np.zeros((3, 4, 5, 3), np.float32)
    vectors[0, 0, 0, 0] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), tmp_path / "nan.nii.gz")
    messages = {
        "order.h5": "must be of affine maps and one displacement field",
        "rigid.tfm": "must be of affine maps and one displacement field",
        "image.nii.gz": "is no displacement",
        "4d.nii.gz": "is no displacement",
        "text.h5": "cannot be read",
        "text.tfm": "cannot be read",
        "cut.nii.gz": "cannot be read",
        "model.ckpt": "is no transform",
        "data.h5": "cannot be read",
        "nan.nii.gz": "NaN",
        "none.h5": "does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message) as error:
            read_transform(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


FIELD = "TransformGroup/2/TransformParameters"
OWN = ("affine", "fixed_affine", "fixed_shape", "moving_affine", "moving_shape")


@pytest.mark.parametrize("how", ["link", "storage", "virtual", "own group"])
def test_what_lies_in_another_file_is_never_read(how, transform, tmp_path):
    count = transform.displacement.size
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"], file["affine"] = np.arange(float(count)), 2 * np.eye(4)
    np.arange(float(count)).tofile(tmp_path / "secret.raw")
    write_transform(transform, tmp_path / "t.h5")
    place = f"{GROUP}/affine" if how == "own group" else FIELD
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        del file[place]
        if how == "storage":
            file.create_dataset(place, (count,), "f8", external=[(str(tmp_path / "secret.raw"), 0, 8 * count)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((count,), "f8")
            layout[:] = h5py.VirtualSource("secret.h5", "secret", (count,))
            file.create_virtual_dataset(place, layout)
        else:
            file[place] = h5py.ExternalLink("secret.h5", "affine" if how == "own group" else "secret")
    for read in (read_transform, knows_moving):
        with pytest.raises(ValueError, match=rf"t\.h5: {place} lies in another file, which is not read"):
            read(tmp_path / "t.h5")


@pytest.mark.parametrize("name", [*(f"{GROUP}/{name}" for name in OWN), FIELD])
def test_parts_of_other_shapes_and_kinds_are_told(name, transform, tmp_path):
    write_transform(transform, tmp_path / "t.h5")
    for value in (np.arange(2.0), np.zeros((2, 2, 2)), 3.0, "text", None, np.full(3, 10**9)):
        with h5py.File(tmp_path / "t.h5", "r+") as file:
            del file[name]
            if value is None:
                file.create_group(name)
            else:
                file[name] = value
        with pytest.raises(ValueError, match=r"t\.h5"):
            read_transform(tmp_path / "t.h5")


def test_files_that_cannot_be_written_are_told(transform, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("nowhere/t.h5", "nowhere/t.nii.gz", "file/t.tfm"):
        with pytest.raises(ValueError, match="cannot be written"):
            write_transform(transform, tmp_path / name)
    with pytest.raises(ValueError, match="ends in one of"):
        write_transform(transform, tmp_path / "t.npz")
    sheared = transform.fixed.affine.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    crooked = Transform(Geometry(FIXED_SHAPE, sheared), transform.moving, transform.affine, transform.displacement)
    with pytest.raises(ValueError, match="sheared"):
        write_transform(crooked, tmp_path / "t.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
