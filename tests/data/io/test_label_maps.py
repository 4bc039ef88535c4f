"""Label maps and masks come to the grid of their image, whoever reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from toy_scans import SHAPE, oblique_affine, scan_arrays

from regcascade.data import build_data
from regcascade.data.io.raw_scan import Source
from regcascade.data.preprocessing.prepare import prepare_scan
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.geometry.grid import voxels_of
from regcascade.inference.scans import ScanFiles, open_scan

AFFINE = oblique_affine((0.9, 1.2, 2.5))
KEPT = Preprocessing(size=SHAPE, fit="crop_pad")


def saved(path: Path, voxels: np.ndarray, affine: np.ndarray, coded: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine if coded else None), path)  # None: both codes are 0
    return path


def turned(voxels: np.ndarray, affine: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same scan stored along other axes."""
    image = nibabel.Nifti1Image(voxels, affine)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
    )
    image = image.as_reoriented(change)
    return np.ascontiguousarray(image.dataobj), image.affine


def by_msd(root: Path) -> torch.Tensor:
    listed = [{"image": f"s{k}/t1.nii.gz", "label": f"s{k}/seg.nii.gz"} for k in (0, 1)]
    (root / "dataset.json").write_text(json.dumps({"labels": {"1": "a", "2": "b"}, "training": listed}))
    # The files of both scans are called t1 and seg.
    for entry in listed:
        for key in entry:
            old = root / entry[key]
            entry[key] = f"{key}_{entry[key].replace('/', '_')}"
            old.rename(root / entry[key])
    (root / "dataset.json").write_text(json.dumps({"labels": {"1": "a", "2": "b"}, "training": listed}))
    return data_set(name="msd", root=str(root))


def by_subjects(root: Path) -> torch.Tensor:
    return data_set(name="subjects", root=str(root), images="*/t1.nii.gz", labels="*/seg.nii.gz")


def by_pairs(root: Path) -> torch.Tensor:
    table = root / "pairs.csv"
    files = "s0/t1.nii.gz,s1/t1.nii.gz,s0/seg.nii.gz,s1/seg.nii.gz"
    table.write_text(f"fixed,moving,fixed_labels,moving_labels\n{files}\n")
    return data_set(name="pairs", validation=str(table))


def by_learn2reg(root: Path) -> torch.Tensor:
    scans = [{"image": f"s{k}_t1.nii.gz", "label": f"s{k}_seg.nii.gz"} for k in (0, 1)]
    for path in [*root.glob("*/*.nii.gz")]:
        path.rename(root / f"{path.parent.name}_{path.name}")
    pairs = [{"fixed": "s0_t1.nii.gz", "moving": "s1_t1.nii.gz"}]
    (root / "dataset.json").write_text(json.dumps({"training": scans, "registration_val": pairs}))
    return data_set(name="learn2reg", root=str(root))


def data_set(**spec: object) -> torch.Tensor:
    options = {"size": list(SHAPE), "fit": "crop_pad"} | (
        {"validation": 2} if spec["name"] in ("msd", "subjects") else {}
    )
    return build_data({**options, **spec}).cases[1].labels[0]


def by_prepare(root: Path) -> torch.Tensor:
    source = Source("s1", root / "s1/t1.nii.gz", root / "s1/seg.nii.gz")
    record, _, labels, _ = prepare_scan(source, {"name": "generic", "size": list(SHAPE), "orientation": "LPS"})
    back, _ = turned(labels[0].numpy(), np.array(record.affine), "".join(nibabel.aff2axcodes(AFFINE)))
    return torch.from_numpy(back)


def by_register(root: Path) -> torch.Tensor:
    scan = open_scan(ScanFiles(root / "s1/t1.nii.gz", labels=root / "s1/seg.nii.gz"))
    return torch.from_numpy(voxels_of(scan.labels).astype(np.int16))


def by_datalist(root: Path) -> torch.Tensor:
    by_msd(root)  # whose JSON it takes as it is
    return data_set(name="datalist", root=str(root / "dataset.json"), validation=2)


READERS = [by_msd, by_datalist, by_subjects, by_pairs, by_learn2reg, by_prepare, by_register]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, np.ndarray]]:
    """Write two subjects; the label map of the second is as given. Returns the folder, and those labels."""

    def written(voxels: np.ndarray | None, affine: np.ndarray, coded: bool = True) -> tuple[Path, np.ndarray]:
        for k in (0, 1):
            image, labels = scan_arrays(k)
            saved(tmp_path / f"s{k}/t1.nii.gz", image, AFFINE)
            saved(tmp_path / f"s{k}/seg.nii.gz", labels, AFFINE)
        saved(tmp_path / "s1/seg.nii.gz", labels if voxels is None else voxels, affine, coded)
        return tmp_path, labels

    return written


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("axes", ["LPS", "SRA", "AIL"])
def test_labels_on_the_image_s_grid_turned_come_onto_it(write, read, axes):
    root, labels = write(*turned(scan_arrays(1)[1], AFFINE, axes))
    np.testing.assert_array_equal(read(root), labels)


@pytest.mark.parametrize("read", READERS)
def test_labels_elsewhere_are_refused_with_both_files_and_what_differs(write, read):
    moved = AFFINE.copy()
    moved[0, 3] += 4
    root, _ = write(None, moved)
    with pytest.raises(ValueError, match=r"seg\.nii\.gz does not lie where its image .*t1\.nii\.gz does: .* 4 mm"):
        read(root)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("affine", "coded"), [(np.eye(4), True), (AFFINE, False)], ids=["identity", "no codes"])
def test_labels_that_say_not_where_they_lie_are_taken_voxel_by_voxel_with_a_warning(write, read, affine, coded):
    root, labels = write(None, affine, coded)
    with pytest.warns(UserWarning, match="do not say where they lie"):
        np.testing.assert_array_equal(read(root), labels)


def test_the_rounding_of_headers_is_no_difference_and_other_voxel_sizes_are(write, recwarn):
    root, labels = write(None, AFFINE.round(4))
    np.testing.assert_array_equal(by_subjects(root), labels)
    assert not [warning for warning in recwarn if "where they lie" in str(warning.message)]
    root, _ = write(None, AFFINE @ np.diag([1.05, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"its voxels measure 0\.945 x 1\.2 x 2\.5 mm, and those of the image 0\.9"):
        by_subjects(root)
