"""Every format gives the same voxels at the same place; what is no scan is refused by name."""

import locale
import re
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from toy_scans import BETWEEN, THICKNESS, oblique_affine, write_dicom

from regcascade.data.io.errors import PlaceWarning
from regcascade.data.io.images import VolumeError, kept_locale, read_header, read_volume, scan_name
from regcascade.data.io.itk_images import read_scan

SHAPE = (7, 9, 5)
VOXELS = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
AFFINE = oblique_affine((0.8, 1.1, 2.5))


@kept_locale()
def write_itk(path: Path) -> Path:
    image = sitk.GetImageFromArray(VOXELS.T)
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


def written(kind: str, folder: Path) -> Path:
    if kind == "dicom":
        return write_dicom(folder / "series", VOXELS, AFFINE)
    path = folder / f"scan{kind}"
    if kind.startswith(".nii"):
        nibabel.save(nibabel.Nifti1Image(VOXELS, AFFINE), path)
        return path
    return write_itk(path)


@pytest.mark.parametrize("kind", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", "dicom"])
def test_every_format_gives_the_same_voxels_at_the_same_place(kind, tmp_path):
    path = written(kind, tmp_path)
    header, scan = read_header(path), read_volume(path)
    assert header.shape == SHAPE
    assert header.spacing == pytest.approx((0.8, 1.1, 2.5), rel=1e-4)
    np.testing.assert_allclose(header.affine, AFFINE, atol=1e-3)
    np.testing.assert_allclose(np.asarray(scan.affine), AFFINE, atol=1e-3)
    assert scan.shape == (1, *SHAPE) and str(scan.dtype) == "torch.float32"
    np.testing.assert_array_equal(scan[0].numpy(), VOXELS)


def test_voxels_lie_where_the_header_says_if_sform_and_voxel_sizes_disagree(tmp_path):
    """MONAI would take the qform then."""
    image = nibabel.Nifti1Image(VOXELS, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.set_sform(np.diag([-2.1, 2.1, 2.1, 1.0]), 1)
    image.header["pixdim"][1:4] = 2
    nibabel.save(image, tmp_path / "scan.nii")
    where = read_header(tmp_path / "scan.nii").affine
    np.testing.assert_allclose(where, np.diag([-2.1, 2.1, 2.1, 1.0]), atol=1e-6)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").affine, where)


def test_a_folder_of_two_series_asks_which(tmp_path):
    folder = write_dicom(tmp_path / "two", VOXELS, AFFINE, uid="1.2.3.4")
    write_dicom(folder, VOXELS + 1, AFFINE, uid="1.2.3.5")
    with pytest.raises(VolumeError, match=r"two holds 2 DICOM series: .*1\.2\.3\..* \(5 files\).*Choose one"):
        read_header(folder)
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    ranges = sorted(float(read_volume(folder, uid).min()) for uid in ids)
    assert ranges == [VOXELS.min(), VOXELS.min() + 1]
    with pytest.raises(VolumeError, match=r"no DICOM series 7\.7"):
        read_header(folder, "7.7")


def test_a_missing_slice_is_found(tmp_path):
    folder = write_dicom(tmp_path / "series", VOXELS, AFFINE)
    sorted(folder.iterdir())[2].unlink()
    with pytest.raises(VolumeError, match=r"not evenly spaced \(5 mm .* 2.5 mm elsewhere\): a slice is missing"):
        read_volume(folder)


@kept_locale()
def test_what_is_no_scan_is_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mha").write_text("hello")
    (tmp_path / "text.nii.gz").write_text("hello")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2)), np.eye(4)), tmp_path / "series.nii")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4), np.uint8)), str(tmp_path / "flat.png"))
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), np.float32), isVector=True), str(tmp_path / "rgb.mha")
    )
    whole = write_itk(tmp_path / "cut.nrrd")
    whole.write_bytes(whole.read_bytes()[:-200])
    write_itk(tmp_path / "lost.mhd")
    (tmp_path / "lost.raw").unlink()
    for name, message in {
        "absent.nii": "does not exist", "empty": "no DICOM series", "text.mha": "cannot be read",
        "text.nii.gz": "cannot be read", "series.nii": "4 axes", "flat.png": "2 axes", "rgb.mha": "4 axes",
        "cut.nrrd": "cannot be read", "lost.mhd": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(VolumeError, match=rf"{name}.*{message}"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.nii.gz", "a"), ("b.c.nii", "b.c"), ("d.MHD", "d"), ("e", "e"), (".nii", ".nii"), ("f_1.nrrd", "f_1")],
)
def test_scans_are_named_after_their_files(file, name):
    assert scan_name(Path("somewhere") / file) == name


def test_reading_leaves_the_locale_alone(tmp_path):
    """ITK would leave the C locale, in which text files are taken for ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    read_volume(written("dicom", tmp_path))
    read_volume(written(".nrrd", tmp_path))
    assert locale.setlocale(locale.LC_ALL) == before


def test_slices_of_a_tilted_gantry_are_refused(tmp_path):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.6
    write_dicom(tmp_path / "series", np.random.default_rng(0).integers(0, 900, (12, 10, 8)).astype(np.int16), affine)
    with pytest.raises(ValueError, match="sheared"):
        read_scan(tmp_path / "series")


@pytest.mark.parametrize("start", [1, 40])
@pytest.mark.parametrize("tag", [THICKNESS, BETWEEN])
@pytest.mark.parametrize("step", [2, -3])
def test_a_series_of_which_every_second_slice_is_missing_is_refused(start, tag, step, tmp_path):
    """What is left is evenly spaced, so that only numbers and the stated distance tell."""
    numbers = [start + step * k for k in range(5)]
    write_dicom(tmp_path / "series", VOXELS, AFFINE, numbers=numbers, stated={tag: 2.5 / abs(step)})
    what = {THICKNESS: "SliceThickness", BETWEEN: "SpacingBetweenSlices"}[tag]
    with pytest.raises(VolumeError, match=rf"slices are missing between .*2\.5 mm apart, {abs(step)} times the {what}"):
        read_volume(tmp_path / "series")


def test_every_second_file_of_a_series_is_not_enough(tmp_path):
    folder = write_dicom(tmp_path / "series", np.repeat(VOXELS, 2, axis=2), AFFINE, stated={BETWEEN: 2.5})
    for file in sorted(folder.iterdir())[1::2]:
        file.unlink()
    with pytest.raises(VolumeError, match=r"numbered 1, 3, .* 5 mm apart, 2 times the SpacingBetweenSlices of 2\.5"):
        read_header(folder)


@pytest.mark.parametrize(
    ("numbers", "stated"),
    [
        ([None] * 5, {THICKNESS: 1.25}),
        ([9, 8, 7, 6, 5], {THICKNESS: 2.5}),
        ([3, 4, 5, 6, 7], {THICKNESS: 1.25}),  # a gap between slices
        ([1, 2, 3, 4, 5], {THICKNESS: 5.0}),  # overlapping
        ([2, 4, 6, 8, 10], {THICKNESS: 2.5}),  # numbered in turn with another series
        ([2, 4, 6, 8, 10], {BETWEEN: 2.5, THICKNESS: 1.25}),
        ([2, 4, 6, 8, 10], {}),
        ([1, 4, 2, 5, 3], {THICKNESS: 2.5}),  # in the order of acquisition
        ([1, 1, 1, 1, 1], {THICKNESS: 0.0}),
        ([1, 3, 5, None, 9], {THICKNESS: 1.25}),
    ],
)
def test_a_whole_series_is_read_however_it_is_numbered(numbers, stated, tmp_path):
    write_dicom(tmp_path / "series", VOXELS, AFFINE, numbers=numbers, stated=stated)
    np.testing.assert_array_equal(read_volume(tmp_path / "series")[0].numpy(), VOXELS)


def test_a_file_of_surfaces_and_voxels_that_is_called_nifti_is_refused(tmp_path):
    path = tmp_path / "x.dscalar.nii"
    places = nibabel.cifti2.BrainModelAxis.from_mask(np.ones((2, 3, 4), bool), "thalamus_left", np.eye(4))
    axes = nibabel.cifti2.ScalarAxis(["thickness"]), places
    nibabel.save(nibabel.Cifti2Image(np.zeros((1, 24), np.float32), axes), path)
    with pytest.raises(ValueError, match=r"x\.dscalar\.nii holds no grid of voxels \(Cifti2Image\)"):
        read_volume(path)


@pytest.mark.parametrize("kind", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_one_time_point_or_channel_is_a_3d_image(kind, tmp_path):
    """As ANTs and many scanners write it: `(X, Y, Z, 1)`."""
    path = tmp_path / f"scan{kind}"
    if kind.startswith(".nii"):
        nibabel.save(nibabel.Nifti1Image(VOXELS[..., None], AFFINE), path)
    else:
        with kept_locale():
            sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(write_itk(tmp_path / "plain.mha")))]), str(path))
    np.testing.assert_array_equal(read_volume(path)[0].numpy(), VOXELS)
    np.testing.assert_allclose(read_header(path).affine, AFFINE, atol=1e-3)
    scan = read_scan(path)
    assert scan.GetSize() == SHAPE and scan.GetNumberOfComponentsPerPixel() == 1
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan).T, VOXELS)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["list", "vector"])
def test_a_nrrd_file_with_a_list_axis_of_one_is_a_3d_image(tmp_path, kind, first):
    order = (lambda one, three: [one, *three]) if first else (lambda one, three: [*three, one])
    fields = {
        "type": "int16", "dimension": "4", "space": "left-posterior-superior", "endian": "little", "encoding": "raw",
        "sizes": " ".join(order("1", map(str, SHAPE))), "kinds": " ".join(order(kind, ["domain"] * 3)),
        "space directions": " ".join(order("none", ["(2,0,0)", "(0,2,0)", "(0,0,2)"])), "space origin": "(1,2,3)",
    }  # fmt: skip
    head = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"
    path = tmp_path / "scan.nrrd"
    path.write_bytes(head.encode() + VOXELS.astype("<i2").tobytes(order="F"))
    np.testing.assert_array_equal(read_volume(path)[0].numpy(), VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(path)).T, VOXELS)


@pytest.mark.parametrize("kind", [".nii.gz", ".mgz", ".mha", ".mhd", ".nrrd"])
def test_a_stream_whose_checksum_does_not_fit_is_refused(kind, tmp_path):
    path = tmp_path / f"scan{kind}"
    if kind in (".nii.gz", ".mgz"):
        nibabel.save((nibabel.MGHImage if kind == ".mgz" else nibabel.Nifti1Image)(VOXELS.astype("f4"), AFFINE), path)
    else:
        with kept_locale():
            sitk.WriteImage(sitk.ReadImage(str(write_itk(tmp_path / "plain.nii"))), str(path), useCompression=True)
    stream = path.with_suffix(".zraw") if kind == ".mhd" else path
    content = bytearray(stream.read_bytes())
    content[-7 if kind in (".nii.gz", ".mgz", ".nrrd") else -2] ^= 255
    stream.write_bytes(content)
    for read in (read_volume, read_scan):
        with pytest.raises(VolumeError, match=rf"scan\{kind} cannot be read"):
            read(path)


@pytest.mark.parametrize("kind", [".gipl", ".vtk", ".mha", ".nii"])
def test_a_file_that_is_cut_short_is_refused(kind, tmp_path):
    path = write_itk(tmp_path / f"scan{kind}")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VolumeError, match=rf"scan\{kind} cannot be read"):
        read_volume(path)


def test_minc_lies_where_minc_says(tmp_path):
    """MINC's world is RAS, its array `(z, y, x)`; ITK takes it for LPS."""
    path = tmp_path / "scan.mnc"
    steps, starts = {"z": 2.5, "y": 1.1, "x": 0.8}, {"z": 7.5, "y": -30.0, "x": 12.0}
    turned = VOXELS.T
    with h5py.File(path, "w") as file:
        for axis, length in zip(steps, turned.shape, strict=True):
            there = file.create_dataset(f"minc-2.0/dimensions/{axis}space", data=0)
            there.attrs.update(
                step=steps[axis], start=starts[axis], length=np.int32(length), spacing=np.bytes_("regular__")
            )
            there.attrs["direction_cosines"] = np.eye(3)["xyz".index(axis)]
        image = file.create_dataset("minc-2.0/image/0/image", data=turned)
        image.attrs.update(dimorder=np.bytes_("zspace,yspace,xspace"), valid_range=[-1000.0, 999.0])
        file.create_dataset("minc-2.0/image/0/image-min", data=-1000.0)
        file.create_dataset("minc-2.0/image/0/image-max", data=999.0)
    with pytest.warns(PlaceWarning, match=r"scan\.mnc is placed in RAS, as MINC says"):
        scan = read_volume(path)
    np.testing.assert_allclose(scan[0].numpy().T, VOXELS, atol=1e-3)
    voxel, place = np.array([1, 2, 3, 1.0]), [12 + 0.8 * 3, -30 + 1.1 * 2, 7.5 + 2.5 * 1]
    np.testing.assert_allclose((np.asarray(scan.affine) @ voxel)[:3], place, atol=1e-9)
    assert scan_name(path) == "scan"


@pytest.mark.parametrize(
    ("codes", "shift", "doubt"),
    [
        ((1, 2), 3.0, "is placed by its sform, where .* may take its qform, which differs"),
        ((1, 2), 0.01, None),
        ((0, 2), 3.0, None),
        ((1, 0), 3.0, None),
        ((0, 0), 0.0, r"says not where it lies \(no qform or sform\)"),
    ],
)
def test_a_file_that_other_programs_place_elsewhere_is_named(codes, shift, doubt, tmp_path, recwarn):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += shift
    image.set_sform(AFFINE, codes[1])
    image.set_qform(moved, codes[0])
    nibabel.save(image, tmp_path / "scan.nii")
    where = read_header(tmp_path / "scan.nii").affine
    told = [str(warning.message) for warning in recwarn if warning.category is PlaceWarning]
    assert len(told) == (doubt is not None)
    if doubt is not None:
        assert re.search(rf"scan\.nii {doubt}", told[0])
    if codes[1]:
        np.testing.assert_allclose(where, AFFINE, atol=1e-5)


@pytest.mark.parametrize("code", [2, 6, 32, 44])
def test_deeply_nested_json_in_an_extension_does_no_harm(code, tmp_path):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"[" * 100_000 + b"]" * 100_000))
    nibabel.save(image, tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[356:360] = np.int32(code).tobytes()
    (tmp_path / "scan.nii").write_bytes(content)
    try:
        np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii")[0].numpy(), VOXELS)
    except VolumeError as error:
        assert "scan.nii" in str(error)
