"""DICOM slices and frames become a volume only if they are one; what differs is named."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from toy_scans import oblique_affine, write_dicom

from regcascade.data.io.images import VolumeError, kept_locale, read_header, read_volume
from regcascade.data.io.itk_images import read_scan

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (7, 9, 6)).astype(np.int16)
AFFINE = oblique_affine((0.8, 1.1, 2.5))


@pytest.fixture
def series(tmp_path):
    return write_dicom(tmp_path / "series", VOXELS, AFFINE)


def edit(file: Path, **values: object) -> None:
    """Change elements of a file, or take out those that are None."""
    header = dcmread(file)
    for key, value in values.items():
        if value is None:
            delattr(header, key)
        else:
            setattr(header, key, value)
    header.save_as(file)


def part(**values: object) -> Dataset:
    made = Dataset()
    for key, value in values.items():
        setattr(made, key, value)
    return made


def write_enhanced(path: Path, steps: list[float], slopes: list[float] | None = None, plain: bool = False) -> Path:
    """A multi-frame file of `VOXELS`, each frame so many steps from the first one; `plain` places the first only."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    where = part(ImageOrientationPatient=[round(float(value), 8) for value in (lps[:3, :2] / spacing[:2]).T.ravel()])
    size = part(PixelSpacing=[float(spacing[1]), float(spacing[0])])
    places = [[round(float(value), 6) for value in lps[:3, 3] + step * lps[:3, 2]] for step in steps]
    frames = VOXELS[:, :, np.arange(len(steps)) % VOXELS.shape[2]]
    file = part(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", SOPInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3", Modality="MR",
        StudyInstanceUID="1.2", InstanceNumber=1, Rows=9, Columns=7, NumberOfFrames=len(steps), SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15, PixelRepresentation=1,
        PixelData=np.ascontiguousarray(frames.T).astype("<i2").tobytes(),
    )  # fmt: skip
    if plain:
        file.SOPClassUID, file.Modality = "1.2.840.10008.5.1.4.1.1.20", "NM"
        file.DetectorInformationSequence = [
            part(ImagePositionPatient=places[0], ImageOrientationPatient=where.ImageOrientationPatient)
        ]
        file.PixelSpacing, file.SpacingBetweenSlices = size.PixelSpacing, 2.5
    else:
        file.SharedFunctionalGroupsSequence = [part(PlaneOrientationSequence=[where], PixelMeasuresSequence=[size])]
        file.PerFrameFunctionalGroupsSequence = [
            part(
                PlanePositionSequence=[part(ImagePositionPatient=place)],
                PixelValueTransformationSequence=[part(RescaleSlope=slope, RescaleIntercept=-5.0, RescaleType="US")],
            )
            for place, slope in zip(places, slopes or [1.0] * len(steps), strict=True)
        ]
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "is not one volume: ImageOrientationPatient is .* in "),
        (
            {"PixelSpacing": [1.1, 0.9]},
            r"PixelSpacing is \[1\.1, 0?\.8\] in .* and \[1\.1, 0\.9\] in",
        ),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE"]}, "is not one volume: ImageType is"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "is a mosaic"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer"),
        ({"PixelSpacing": None}, r"does not say where it lies \(DICOM's PixelSpacing is missing\)"),
        ({"ImageOrientationPatient": None}, r"DICOM's ImageOrientationPatient is missing"),
        ({"ImagePositionPatient": None}, r"DICOM's ImagePositionPatient is missing"),
    ],
)
def test_slices_that_are_not_one_volume_are_refused(series, change, message):
    edit(sorted(series.iterdir())[0 if None in change.values() else 3], **change)
    with pytest.raises(VolumeError, match=message) as told:
        read_header(series)
    assert "etch it again" not in str(told.value) and str(series) in str(told.value)


def test_slices_of_another_size_are_refused(series):
    file = sorted(series.iterdir())[3]
    edit(file, Rows=7, Columns=9)
    with pytest.raises(VolumeError, match=r"not one volume: Rows is 9 in .* and 7|2 DICOM series"):
        read_header(series)


def test_slices_at_the_same_places_are_two_volumes(series):
    for number, file in enumerate(sorted(series.iterdir())):
        (series / f"again_{number}.dcm").write_bytes(file.read_bytes())
        edit(series / f"again_{number}.dcm", SOPInstanceUID=f"1.2.9.{number}")
    with pytest.raises(VolumeError, match="its 12 slices lie at 6 places"):
        read_header(series)


@pytest.mark.parametrize("left", [0, 100, 700, -1, -30])
def test_a_slice_file_that_is_cut_short_is_not_dropped(series, left):
    file = sorted(series.iterdir())[-1]
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(VolumeError, match=rf"{file.name}.*(cut short|cannot be read)"):
        read_volume(series)


def test_slices_scaled_each_in_its_own_way_keep_their_values(series):
    slopes = [1.0, 0.25, 0.5, 2.0, 0.125, 1.0]
    for file, slope in zip(sorted(series.iterdir()), slopes, strict=True):
        edit(file, RescaleSlope=slope, RescaleIntercept=0.5)
    for voxels in (read_volume(series)[0].numpy(), sitk.GetArrayFromImage(read_scan(series)).T):
        np.testing.assert_allclose(voxels, VOXELS * np.array(slopes) + 0.5, atol=1e-3)


def test_a_single_slice_is_no_volume(series):
    with pytest.raises(VolumeError, match=r"is a single slice .*give the folder of the whole series"):
        read_header(sorted(series.iterdir())[0])


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_a_file_of_frames_reads_alike_by_its_name_and_alone_in_a_folder(tmp_path, alone, plain):
    path = write_enhanced(tmp_path / "a.dcm", list(range(6)), plain=plain)
    scan = read_volume(tmp_path if alone else path)
    np.testing.assert_allclose(np.asarray(scan.affine), AFFINE, atol=1e-5)
    np.testing.assert_array_equal(scan[0].numpy(), VOXELS - (0 if plain else 5))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(path)).T, scan[0].numpy())


@pytest.mark.parametrize(
    ("steps", "slopes", "message"),
    [
        ([0, 1, 2, 3, 4, 5] * 2, None, "its 12 slices lie at 6 places"),
        ([0, 0, 1, 1, 2, 2], None, "its 6 slices lie at 3 places"),
        ([0, 1, 2, 4, 5, 6], None, "not evenly spaced .*5 mm between frame 3 of a.dcm and frame 4 of a.dcm"),
        ([0, 2, 4, 1, 3, 5], None, "out of order"),
        (list(range(6)), [1, 1, 2, 1, 1, 1], "RescaleSlope changes between its frames"),
    ],
)
def test_frames_that_are_not_one_volume_are_refused(tmp_path, steps, slopes, message):
    with pytest.raises(VolumeError, match=rf"a\.dcm.*{message}"):
        read_volume(write_enhanced(tmp_path / "a.dcm", steps, slopes))


@kept_locale()
def test_a_file_beside_a_series_that_is_no_image_is_left_alone(series):
    (series / "notes.txt").write_text("no DICOM")
    assert read_header(series).shape == VOXELS.shape
