import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from toy_scans import SHAPE, SPACING, scan_arrays, write_nifti

from regcascade.data.case import Case
from regcascade.data.datasets.scans import Scans
from regcascade.data.io.images import scan_name
from regcascade.data.io.raw_scan import Source
from regcascade.data.preprocessing.standard import Preprocessing

DEFAULTS = {
    "size": (16, 12, 11),
    "fit": "crop_pad",
    "pad": 0.0,
    "intensity": "percentiles",
    "percentiles": (1.0, 99.0),
    "window": (290.0, 120.0),
}


def preprocessing(**changes: object) -> Preprocessing:
    return Preprocessing(**{**DEFAULTS, **changes})


def case_of(made_by: Preprocessing, image: Path, labels: Path | None = None, mask: Path | None = None) -> Case:
    return Scans([Source(scan_name(image), image, labels, mask)], made_by, None, masked=mask is not None)[0]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    image, labels = scan_arrays(0)
    return write_nifti(tmp_path / "a.nii.gz", image), write_nifti(tmp_path / "a_seg.nii.gz", labels)


def unit_range(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)


def test_crop_pad_keeps_the_voxels_their_order_and_the_spacing(files):
    image, labels = scan_arrays(0)
    case = case_of(preprocessing(percentiles=(0.0, 100.0)), *files)
    # 13 -> 16 pads 1 before and 2 after; 18 -> 12 cuts 3 and 3.
    wanted = np.zeros((16, 12, 11))
    wanted[1:14] = unit_range(image, image.min(), image.max())[:, 3:15]
    wanted_labels = np.zeros((16, 12, 11))
    wanted_labels[1:14] = labels[:, 3:15]
    assert case.name == "a"
    assert case.spacing == pytest.approx(SPACING)
    np.testing.assert_allclose(case.image[0], wanted, atol=1e-6)
    np.testing.assert_array_equal(case.labels[0], wanted_labels)
    assert type(case.image) is torch.Tensor and type(case.labels) is torch.Tensor


def test_pad_by_a_value_or_by_the_edge(files):
    image, _ = scan_arrays(0)
    case = case_of(preprocessing(pad=0.5), *files)
    assert (case.image[0, 0] == 0.5).all() and (case.labels[0, 0] == 0).all()
    case = case_of(preprocessing(pad="edge", percentiles=(0.0, 100.0)), *files)
    wanted = unit_range(image, image.min(), image.max())[0, 3:15]
    np.testing.assert_allclose(case.image[0, 0], wanted, atol=1e-6)


def test_resample_is_half_pixel_and_keeps_the_field_of_view(files):
    image, labels = scan_arrays(0)
    size = (26, 9, 15)
    case = case_of(preprocessing(size=size, fit="resample", percentiles=(0.0, 100.0)), *files)
    centres = np.meshgrid(
        *((np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(SHAPE, size, strict=True)),
        indexing="ij",
    )
    mapped = unit_range(image, image.min(), image.max())
    np.testing.assert_allclose(case.image[0], map_coordinates(mapped, centres, order=1, mode="nearest"), atol=1e-5)
    nearest = tuple(np.floor(axis + 0.5).astype(int) for axis in centres)
    np.testing.assert_array_equal(case.labels[0], labels[nearest])
    extents = np.array(case.spacing) * size
    np.testing.assert_allclose(extents, np.array(SPACING) * SHAPE, rtol=1e-5)


def test_percentiles_are_those_of_the_scan_before_padding(files):
    image, _ = scan_arrays(0)
    case = case_of(preprocessing(size=(40, 40, 40), percentiles=(5.0, 90.0)), files[0])
    wanted = unit_range(image, *np.percentile(image.astype(np.float64), [5, 90]))
    np.testing.assert_allclose(case.image[0, 13:26, 11:29, 14:25], wanted, atol=1e-5)
    assert case.labels is None


def test_window_is_width_and_level(tmp_path: Path):
    image = np.full(SHAPE, -1000, np.int16)
    image[:3], image[3:6], image[6:9] = 120, 265, 3000
    case = case_of(preprocessing(size=SHAPE, intensity="window"), write_nifti(tmp_path / "ct.nii.gz", image))
    assert case.image[0, :, 0, 0].tolist() == pytest.approx([0.5] * 3 + [1] * 6 + [0] * 4)


def test_description_is_plain_and_builds_it_again():
    original = preprocessing(pad="edge", size=[16, 17, 18])
    description = json.loads(json.dumps(original.as_dict()))
    assert Preprocessing(**description) == original
    assert description["size"] == [16, 17, 18]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("size", (16, 16)),
        ("size", (16, 16, 0)),
        ("fit", "stretch"),
        ("pad", "mirror"),
        ("pad", 2.0),
        ("intensity", "zscore"),
        ("percentiles", (99.0, 1.0)),
        ("percentiles", (1.0,)),
        ("window", (0.0, 120.0)),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_option(option, value):
    with pytest.raises(ValueError, match=f"data.{option}="):
        preprocessing(**{option: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: np.full_like(image, 7), "constant"),
        (lambda image: np.where(image > image.mean(), np.nan, image), "NaN"),
        (lambda image: np.where(image == image.max(), np.inf, image), "NaN or infinite"),
        (lambda image: np.where(image == image.max(), 1, 0), "percentiles"),
        (lambda image: np.stack([image, image], -1), "4 axes"),
        (lambda image: image[0], "2 axes"),
    ],
)
def test_a_scan_that_shows_nothing_is_refused_by_name(tmp_path, change, message):
    image = change(scan_arrays(0)[0]).astype(np.float32)
    path = write_nifti(tmp_path / "bad.nii.gz", image)
    with pytest.raises(ValueError, match=rf"bad\.nii\.gz.*{message}"):
        case_of(preprocessing(), path)


def test_a_scan_outside_the_window_is_refused(files):
    with pytest.raises(ValueError, match=r"a\.nii\.gz.*data\.window"):
        case_of(preprocessing(intensity="window", window=(100.0, -5000.0)), files[0])


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.98])
def test_a_file_cut_short_is_refused_by_name(files, kept):
    path = files[0]
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ValueError, match=r"a\.nii\.gz cannot be read"):
        case_of(preprocessing(), path)


def test_an_uncompressed_file_cut_short_is_refused_by_name(tmp_path):
    path = write_nifti(tmp_path / "a.nii", scan_arrays(0)[0])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"a\.nii cannot be read"):
        case_of(preprocessing(), path)


def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a scan")
    with pytest.raises(ValueError, match=r"notes\.txt cannot be read as an image"):
        case_of(preprocessing(), path)


@pytest.mark.parametrize("value", [0.5, -1, np.nan])
def test_labels_must_be_whole_numbers(tmp_path, files, value):
    labels = scan_arrays(0)[1].astype(np.float32)
    labels[0, 0, 0] = value
    with pytest.raises(ValueError, match=r"odd\.nii\.gz: labels must be whole numbers"):
        case_of(preprocessing(), files[0], write_nifti(tmp_path / "odd.nii.gz", labels))


def test_large_label_values_survive(tmp_path, files):
    labels = scan_arrays(0)[1].astype(np.int32) * 40_000
    case = case_of(preprocessing(size=SHAPE), files[0], write_nifti(tmp_path / "large.nii.gz", labels))
    np.testing.assert_array_equal(case.labels[0], labels)


def test_a_degenerate_geometry_is_refused(tmp_path):
    path = write_nifti(tmp_path / "flat.nii.gz", scan_arrays(0)[0])
    image = nibabel.load(path)
    image.header["srow_z"] = 0
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    nibabel.Nifti1Image(image.get_fdata(), None, image.header).to_filename(path)
    with pytest.raises(ValueError, match=r"flat\.nii\.gz has a degenerate geometry"):
        case_of(preprocessing(), path)
