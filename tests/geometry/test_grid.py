"""Grids in the world, as nibabel and ITK see them."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from known_grids import GRIDS, SHAPE, numbered, oblique

from regcascade.geometry.grid import Geometry, voxels_of


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
