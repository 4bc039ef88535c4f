"""Grids in the world, and scans in their own pixel type."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from regcascade.data.io.images import kept_locale, read_header, read_volume
from regcascade.data.io.itk_images import read_scan, write_scan
from regcascade.geometry.grid import Geometry, voxels_of

SHAPE = (5, 7, 4)


def oblique(spacing=(0.8, 1.2, 3.0), origin=(12.0, -30.0, 7.5)):
    a, b = np.deg2rad([17, -31])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * np.array(spacing)
    affine[:3, 3] = origin
    return affine


GRIDS = {
    "oblique": oblique(),
    "las": np.diag([-1.0, 2, 3, 1]),
    "lps": np.diag([-2.0, -1, 3, 1]),
    "permuted": np.eye(4)[[2, 0, 1, 3]],
}


def numbered(kind=np.float32):
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(kind)


@pytest.mark.parametrize("name", GRIDS)
def test_itk_sees_every_voxel_where_nibabel_does(name):
    geometry = Geometry(SHAPE, GRIDS[name])
    image = geometry.as_itk(numbered())
    index = (3, 6, 2)
    place = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
    np.testing.assert_allclose(place, geometry.to_world(np.array([index], dtype=float))[0], atol=1e-9)
    assert image[index] == numbered()[index]
    np.testing.assert_array_equal(voxels_of(image), numbered())
    assert Geometry.of_image(image).same_as(geometry)
    back = geometry.to_voxels(geometry.to_world(np.array([[1.5, -2, 9]])))
    np.testing.assert_allclose(back, [[1.5, -2, 9]], atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_a_scan_survives_writing_and_reading(suffix, kind, tmp_path):
    geometry = Geometry(SHAPE, GRIDS["oblique"])
    write_scan(geometry.as_itk(numbered(kind)), tmp_path / f"scan{suffix}")
    read = read_scan(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(voxels_of(read), numbered(kind))
    assert voxels_of(read).dtype == kind
    assert Geometry.of_image(read).same_as(geometry)
    assert read_header(tmp_path / f"scan{suffix}").same_as(geometry)
    assert [path.name for path in tmp_path.iterdir()] == [f"scan{suffix}"]


def test_nibabels_nifti_files_lie_where_the_data_readers_put_them(tmp_path):
    """With and without codes in the header, where ITK and nibabel differ; with a scaling; big-endian."""
    plain = nibabel.Nifti1Image(numbered(np.int16), GRIDS["oblique"])
    without = nibabel.Nifti1Image(numbered(np.int16), None)
    without.header["pixdim"][1:4] = [2, 3, 4]
    scaled = nibabel.Nifti1Image(numbered(np.int16), GRIDS["las"])
    scaled.header.set_slope_inter(0.5, 10)
    big = nibabel.Nifti1Image(numbered(np.int16), GRIDS["lps"], nibabel.Nifti1Header(endianness=">"))
    big.set_data_dtype(np.int16)
    for name, image in {"plain": plain, "without": without, "scaled": scaled, "big": big}.items():
        path = tmp_path / f"{name}.nii"
        nibabel.save(image, path)
        read, expected = read_scan(path), read_volume(path)
        np.testing.assert_allclose(voxels_of(read), expected[0].numpy())
        assert Geometry.of_image(read).same_as(Geometry(SHAPE, np.asarray(expected.affine))), name
        assert voxels_of(read).dtype == (np.float32 if name == "scaled" else np.int16)
    nibabel.save(nibabel.MGHImage(numbered(np.int32), GRIDS["las"]), tmp_path / "scan.mgz")
    assert voxels_of(read_scan(tmp_path / "scan.mgz")).dtype == np.int32


@kept_locale()  # writing DICOM loses it
def test_a_dicom_folder_is_read_in_its_own_type(tmp_path):
    writer, spacing = sitk.ImageFileWriter(), (1.0, 1.5, 2.0)
    writer.KeepOriginalImageUIDOn()
    voxels = numbered(np.int16)
    for k in range(SHAPE[2]):
        part = sitk.GetImageFromArray(voxels[:, :, k].T[None])
        part.SetSpacing(spacing)
        tags = {
            "0008|0060": "CT",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.9.{k}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.8",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.9",
            "0020|0013": str(k),
            "0020|0032": f"0\\0\\{k * 2.0}",
        }
        for key, value in tags.items():
            part.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(part)
    read = read_scan(tmp_path)
    np.testing.assert_array_equal(voxels_of(read), voxels)
    assert voxels_of(read).dtype.kind == "i"
    assert Geometry.of_image(read).same_as(read_header(tmp_path))
    assert read.GetSpacing() == spacing


def test_the_same_grid_up_to_rounding():
    geometry = Geometry(SHAPE, oblique())
    assert geometry.same_as(Geometry(SHAPE, oblique().astype(np.float32)))
    assert not geometry.same_as(Geometry((5, 7, 5), oblique()))
    assert not geometry.same_as(Geometry(SHAPE, oblique(origin=(12.0, -30.0, 7.6))))
    assert not geometry.same_as(Geometry(SHAPE, oblique(spacing=(0.8, 1.2, 3.1))))
    np.testing.assert_allclose(geometry.spacing, (0.8, 1.2, 3.0))


def test_what_lies_within_a_grid():
    geometry = Geometry(SHAPE, oblique())
    voxels = np.array([[-0.49, 0, 0], [4.49, 6.49, 3.49], [-0.51, 0, 0], [0, 6.51, 0], [np.nan, 0, 0]])
    assert geometry.contains(geometry.to_world(voxels)).tolist() == [True, True, False, False, False]
    probes = geometry.to_voxels(geometry.probes(3))
    assert probes.shape == (27, 3)
    np.testing.assert_allclose([probes.min(0), probes.max(0)], [[-0.5] * 3, [4.5, 6.5, 3.5]], atol=1e-9)


def test_a_sheared_grid_is_told(tmp_path):
    affine = oblique()
    affine[:3, 1] += 0.2 * affine[:3, 0]
    with pytest.raises(ValueError, match=r"sheared: two of its axes are at 8\d\.\d+ degrees"):
        Geometry(SHAPE, affine).as_itk(numbered())
    image = nibabel.Nifti1Image(numbered(), None)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "sheared.nii")
    with pytest.raises(ValueError, match=r"sheared\.nii .*is sheared"):
        read_scan(tmp_path / "sheared.nii")


@pytest.mark.parametrize(("cosine", "taken"), [(0.9e-4, True), (1.1e-4, False)])
def test_a_grid_as_crooked_as_headers_round_is_taken_and_is_off_by_little(cosine, taken, tmp_path):
    shape, affine = (300, 300, 2), np.eye(4)
    affine[0, 1] = cosine
    if not taken:
        with pytest.raises(ValueError, match="sheared"):
            Geometry(shape, affine).reference()
        return
    sitk.WriteImage(Geometry(shape, affine).reference(), str(tmp_path / "crooked.nii"))
    corner = np.array([299.0, 299.0, 1.0, 1.0])
    by_quaternion = nibabel.load(tmp_path / "crooked.nii").header.get_qform() @ corner
    assert np.abs(by_quaternion - affine @ corner).max() < 0.02


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan)])
def test_no_grid(affine):
    with pytest.raises(ValueError, match="4 x 4"):
        Geometry(SHAPE, affine)
    with pytest.raises(ValueError, match="at least one voxel"):
        Geometry((3, 0, 2), np.eye(4))


def test_files_that_are_no_scans_are_told(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.float32), np.eye(4)), tmp_path / "4d.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    (tmp_path / "text.mha").write_text("nothing")
    sitk.WriteImage(sitk.Image([3, 4, 5], sitk.sitkVectorUInt8, 3), tmp_path / "rgb.mha")
    for name, message in {
        "4d.nii": "4 axes",
        "complex.nii": "real numbers",
        "text.mha": "cannot be read",
        "rgb.mha": "4 axes",
        "none.nii.gz": "does not exist",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            read_scan(tmp_path / name)
        assert name in str(error.value)


def test_a_scan_that_cannot_be_written_is_told(tmp_path):
    image = Geometry(SHAPE, np.eye(4)).as_itk(numbered())
    with pytest.raises(ValueError, match="ends in one of"):
        write_scan(image, tmp_path / "scan.png")
    with pytest.raises(ValueError, match="cannot be written"):
        write_scan(image, tmp_path / "nowhere" / "scan.nii")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_nifti_file_that_was_cut_short_in_writing_is_no_file(tmp_path, monkeypatch, name):
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((20, 20, 20)))
    write = sitk.WriteImage

    def cut(image, path, **options):
        write(image, path, **options)
        with Path(path).open("r+b") as file:
            file.truncate(3000)

    monkeypatch.setattr(sitk, "WriteImage", cut)
    with pytest.raises(ValueError, match="cannot be written: the disk is full"):
        write_scan(image, tmp_path / name)
    assert not list(tmp_path.iterdir())
