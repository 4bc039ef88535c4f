"""The box of the liver: found in the phantom at any spacing and orientation, grown, cut out."""

from functools import cache

import nibabel
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, ornt_transform
from toy_scans import oblique_affine

from regcascade.data.datasets.phantom import Phantom
from regcascade.data.preprocessing.liver_box import Box, crop_to_box, find_liver, label_box, pad_box

LPS = np.array([-1.0, -1.0, 1.0])  # the phantom's axes
SIZE = (120, 96, 96)  # of 3 mm


@cache
def phantom(index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A case of the phantom in Hounsfield units at 3 mm, and where its liver is."""
    cases = Phantom(1, SIZE, first_index=index)
    return cases.hounsfield(0)[0].numpy(), (cases[0].labels[0] == 1).numpy()


def volume(voxels: np.ndarray, spacing=(3.0, 3.0, 3.0), axes: str = "LPS", shift=(20.0, -35.0, 400.0)) -> MetaTensor:
    """An array with the phantom's axes as a scan with axes of one's own, turned by nibabel."""
    affine = np.diag([*LPS * spacing, 1])
    affine[:3, 3] = shift
    image = nibabel.Nifti1Image(voxels.astype(np.float32), affine)
    turned = image.as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes)))
    voxels = np.ascontiguousarray(turned.get_fdata(dtype=np.float32))
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(turned.affine))


def resampled(voxels: np.ndarray, factors: tuple[int, int, int], keep: tuple[int, int, int]) -> np.ndarray:
    """Each voxel repeated, or every other one left out, along each axis."""
    for axis, (repeat, step) in enumerate(zip(factors, keep, strict=True)):
        voxels = np.repeat(voxels, repeat, axis).take(range(0, voxels.shape[axis] * repeat, step), axis)
    return voxels


def bounds(box: Box, scan: MetaTensor) -> np.ndarray:
    """The lowest and highest coordinates, in mm along the world's axes, of the voxels of a box, faces included."""
    faces = np.array([box.start, box.stop]) - 0.5
    corners = np.stack(np.meshgrid(*faces.T, indexing="ij"), axis=-1).reshape(-1, 3)
    world = apply_affine(np.asarray(scan.affine), corners)
    return np.array([world.min(axis=0), world.max(axis=0)])


def size_of(box: np.ndarray) -> float:
    return float(np.prod(box[1] - box[0]))


def check_crop(scan: MetaTensor, liver: MetaTensor) -> np.ndarray:
    """The grown box, which must hold the liver, and not much more than it."""
    grown = bounds(pad_box(find_liver(scan), scan), scan)
    true = bounds(label_box(liver), liver)
    body = bounds(label_box((scan > -300).float()), scan)
    assert (grown[0] <= true[0] + 1).all() and (grown[1] >= true[1] - 1).all(), (grown, true)
    assert size_of(grown) < 2 * size_of(true)
    assert size_of(grown) < 0.4 * size_of(body)
    return grown


@pytest.mark.parametrize("index", [0, 4])
def test_the_crop_holds_the_liver_and_little_else(index):
    scan, liver = phantom(index)
    check_crop(volume(scan), volume(liver))


@pytest.mark.parametrize(
    ("factors", "keep", "spacing"),
    [
        ((3, 3, 1), (1, 1, 1), (1.0, 1.0, 3.0)),
        ((1, 1, 1), (1, 1, 2), (3.0, 3.0, 6.0)),
        ((2, 1, 2), (1, 1, 1), (1.5, 3.0, 1.5)),
    ],
)
def test_the_crop_hardly_depends_on_the_spacing(factors, keep, spacing):
    scan, liver = phantom()
    wanted = check_crop(volume(scan), volume(liver))
    fine = resampled(scan, factors, keep)
    fine = fine + np.random.default_rng(0).normal(0, 15, fine.shape)
    found = check_crop(volume(fine, spacing), volume(resampled(liver, factors, keep), spacing))
    # A voxel's centre moves by up to half a voxel where it is repeated or left out.
    np.testing.assert_allclose(found, wanted, atol=9)


@pytest.mark.parametrize("axes", ["RAS", "LAI", "SPR", "AIL"])
def test_the_crop_does_not_depend_on_the_orientation(axes):
    scan, liver = phantom()
    wanted = check_crop(volume(scan), volume(liver))
    np.testing.assert_allclose(check_crop(volume(scan, axes=axes), volume(liver, axes=axes)), wanted, atol=3.1)


def test_the_filter_stays_within_the_axial_slices():
    # Every other slice is a slab of liver: across the slices a median would fill or empty the gaps.
    scan = np.full((60, 60, 20), -1000.0)
    scan[10:50, 10:50, 4:16:2] = 110.0
    for axes in ("LPS", "SLP"):
        turned = volume(scan, (3.0, 3.0, 20.0), axes)
        box = find_liver(turned)
        axis = axes.index("S")
        assert box.stop[axis] - box.start[axis] == 1


@pytest.mark.parametrize("hounsfield", [-1000.0, 0.0, 500.0])
def test_a_scan_without_a_liver_is_refused(hounsfield):
    scan = np.full((40, 40, 40), hounsfield)
    scan[18:22, 18:22, 18:22] = 110  # too small, and gone with the filter
    with pytest.raises(ValueError, match=r"no liver is found.*Hounsfield.*crop=labels"):
        find_liver(volume(scan))


def test_a_liver_of_less_than_50_ml_is_none():
    scan = np.full((40, 40, 40), -1000.0)
    scan[10:30, 10:30, 10:14] = 110  # 60 x 60 x 12 mm, 43 ml
    with pytest.raises(ValueError, match=r"has [1-9]\d* ml, of at least 50"):
        find_liver(volume(scan))


def test_the_box_of_labels():
    labels = torch.zeros(1, 9, 8, 7)
    labels[0, 2:4, 3, 1:6] = 2
    labels[0, 7, 5, 0] = 5
    labels = MetaTensor(labels)
    assert label_box(labels) == Box((2, 3, 0), (8, 6, 6))
    assert label_box(labels, [2]) == Box((2, 3, 1), (4, 4, 6))
    assert label_box(labels, [5, 9]) == Box((7, 5, 0), (8, 6, 1))
    with pytest.raises(ValueError, match=r"no label of \[3\]"):
        label_box(labels, [3])
    with pytest.raises(ValueError, match="no label above 0"):
        label_box(labels * 0)


def test_a_box_grows_by_a_tenth_and_by_375_hundredths_of_a_mm_at_least_and_ends_with_the_scan():
    scan = MetaTensor(torch.zeros(1, 100, 100, 100), affine=torch.diag(torch.tensor([1.0, 0.5, 5.0, 1.0])))
    grown = pad_box(Box((30, 40, 10), (80, 50, 90)), scan)
    assert grown == Box((25, 32, 2), (85, 58, 98))  # 5 of 50; 8 of 0.5 mm; 8 of 80
    assert pad_box(Box((30, 40, 50), (35, 50, 52)), scan) == Box((26, 32, 49), (39, 58, 53))
    assert pad_box(Box((2, 95, 10), (92, 100, 90)), scan, margin=0.5) == Box((0, 87, 0), (100, 100, 100))


def test_a_crop_keeps_the_world_coordinates():
    affine = oblique_affine((0.8, 1.5, 3.0))
    scan = MetaTensor(torch.arange(20 * 18 * 16).reshape(1, 20, 18, 16).float(), affine=torch.from_numpy(affine))
    box = Box((3, 5, 2), (14, 9, 13))
    cut = crop_to_box(scan, box)
    assert torch.equal(cut.as_tensor(), scan.as_tensor()[:, 3:14, 5:9, 2:13])
    np.testing.assert_allclose(np.asarray(cut.affine) @ [0, 0, 0, 1], affine @ [3, 5, 2, 1])
    whole = Box((0, 0, 0), tuple(cut.shape[1:]))
    np.testing.assert_allclose(bounds(whole, cut), bounds(box, scan))
