"""Scans as ITK images, in their own pixel type and place."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from known_grids import GRIDS, SHAPE, numbered, oblique

from regcascade.data.io.images import kept_locale, read_header, read_volume
from regcascade.data.io.itk_images import read_scan, write_scan
from regcascade.geometry.grid import Geometry, voxels_of


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


def test_files_that_are_no_scans_are_told(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.float32), np.eye(4)), tmp_path / "4d.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    (tmp_path / "text.mha").write_text("nothing")
    sitk.WriteImage(sitk.Image([3, 4, 5], sitk.sitkVectorUInt8, 3), tmp_path / "rgb.mha")
    for name, message in {
        "4d.nii": "4 axes",
        "complex.nii": "give real numbers",
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
