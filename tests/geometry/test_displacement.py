"""Determinants and inverses of displacements, against NumPy and SimpleITK."""

import numpy as np
import SimpleITK as sitk
from known_transforms import (
    FIXED_SHAPE,
    coordinates,
    displacement_at,
    grid,
    places_of,
    there,
    turned,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates

from regcascade.geometry.grid import voxels_of
from regcascade.geometry.transform import Transform


def test_the_determinant_is_that_of_the_steps_between_neighbours(transform):
    """By NumPy: where the sides of a voxel go in the moving world, over its volume in the fixed one."""
    found = transform.jacobian_det()
    assert found.shape == FIXED_SHAPE
    moved = there(transform)
    sides = [np.diff(moved, axis=axis) for axis in range(3)]
    sides = [np.concatenate([side, side.take([-1], axis)], axis) for axis, side in enumerate(sides)]
    expected = np.linalg.det(np.stack(sides, -1)) / np.linalg.det(transform.fixed.affine[:3, :3])
    middle = (slice(None, -1),) * 3
    assert_allclose(found[middle], expected[middle], atol=1e-4)
    assert_allclose(found, expected, atol=0.3)  # the last planes continue the others in a way of their own


def test_the_determinant_is_that_of_simpleitk():
    """ITK's filter takes central differences along the array axes, as if these were the world's."""
    fixed = grid(np.diag([-1.0, -1, 1]), (0.35, 0.5, 0.8), (33, 30, 26))
    vectors = displacement_at(places_of(fixed)).astype(np.float32)
    transform = Transform(fixed, fixed, np.diag([1.2, 1.0, 0.9, 1.0]), vectors)
    field = sitk.Cast(fixed.as_itk(transform.total() * [-1, -1, 1]), sitk.sitkVectorFloat64)
    expected = voxels_of(sitk.DisplacementFieldJacobianDeterminant(field))
    forward = transform.jacobian_det()
    # Half a voxel ahead of the voxel, where ITK's is at it.
    ahead = map_coordinates(expected, np.moveaxis(coordinates(fixed.shape) + 0.5, -1, 0), order=1)
    middle = (slice(1, -2),) * 3
    assert np.abs(forward - ahead)[middle].max() < 0.03 < 0.3 < np.ptp(expected)
    linear = Transform(fixed, fixed, np.diag([1.2, 1.0, 0.9, 1.0]), np.zeros_like(vectors))
    assert_allclose(linear.jacobian_det(), 1.08, atol=1e-5)


def test_the_determinant_of_a_linear_field_is_the_same_on_every_plane():
    fixed = grid(turned(25, -14), (0.8, 0.9, 2.5), (5, 4, 1 + 2))
    matrix = np.array([[0.1, 0.2, 0], [-0.1, 0.05, 0.1], [0.0, 0.1, -0.2]])
    vectors = (places_of(fixed) @ matrix.T).astype(np.float32)
    found = Transform(fixed, fixed, np.eye(4), vectors).jacobian_det()
    assert_allclose(found, np.linalg.det(np.eye(3) + matrix), atol=1e-4)


def test_work_in_slabs_changes_nothing(transform, monkeypatch):
    whole = transform.jacobian_det(), transform.total(), transform.inverse().residual_mm
    monkeypatch.setattr("regcascade.geometry.displacement.CHUNK", 700)
    assert_allclose(transform.jacobian_det(), whole[0], atol=1e-6)
    assert_array_equal(transform.total(), whole[1])
    assert_allclose(transform.inverse().residual_mm, whole[2], atol=1e-3)


def test_a_folded_field_is_told_from_one_that_has_an_inverse():
    fixed = grid(np.eye(3), (1.0, 1.0, 1.0), (24, 8, 8), centre=(0, 0, 0))
    vectors = np.zeros((*fixed.shape, 3), np.float32)
    vectors[..., 0] = -4 * np.sin(np.arange(24) * 2 * np.pi / 12)[:, None, None]  # slope -2.1 .. 2.1
    inverse = Transform(fixed, fixed, np.eye(4), vectors).inverse()
    assert Transform(fixed, fixed, np.eye(4), vectors).jacobian_det().min() < 0
    assert inverse.residual_mm[inverse.reached].max() <= 1e-3
    assert inverse.reached.mean() > 0.5


def test_steep_fields_without_folds_are_inverted():
    """Where a field changes by more than a voxel a voxel, the fixed-point iteration fails and Newton's goes on."""
    fixed = grid(turned(20, 0), (1.0, 1.5, 2.0), (40, 9, 8), centre=(0, 0, 0))
    x = np.arange(40) - 19.5
    vectors = np.zeros((*fixed.shape, 3), np.float32)
    along = np.sign(x) * np.minimum(np.abs(x) * 2.5, 8)  # expands the middle by 3.5
    vectors += along[:, None, None, None].astype(np.float32) * fixed.affine[:3, 0].astype(np.float32)
    transform = Transform(fixed, fixed, np.eye(4), vectors)
    inverse = transform.inverse()
    assert inverse.reached.all() and inverse.residual_mm.max() <= 1e-3
