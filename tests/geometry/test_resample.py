"""Images and label maps through a transform, against SciPy in float64."""

import numpy as np
import pytest
from known_transforms import MOVING_SHAPE, grid, places_of, scan, voxels_there
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates

from regcascade.geometry.grid import Geometry, voxels_of


def test_a_warped_image_is_that_of_scipy(transform):
    image = scan(transform.moving)
    voxels = voxels_there(transform)
    expected = map_coordinates(voxels_of(image).astype(float), voxels, order=1, cval=np.nan)
    moved = voxels_of(transform.warp_image(image))
    inside = np.isfinite(expected)
    assert inside.mean() > 0.3
    assert_allclose(moved[inside], expected[inside], atol=2e-3)
    outside = ((voxels < -0.51) | (voxels > np.array(MOVING_SHAPE).reshape(3, 1, 1, 1) - 0.49)).any(0)
    assert outside.any()
    assert_array_equal(moved[outside], voxels_of(image).min())
    assert_array_equal(voxels_of(transform.warp_image(image, fill=-7.0))[outside], -7)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_pixel_types_and_the_grid_survive(transform, kind):
    moved = transform.warp_image(scan(transform.moving, kind))
    array = voxels_of(moved)
    assert array.dtype == kind
    assert Geometry.of_image(moved).same_as(transform.fixed)
    exact = voxels_of(transform.warp_image(scan(transform.moving, np.float64)))
    assert_allclose(array, np.rint(exact) if np.issubdtype(kind, np.integer) else exact, atol=1e-3, rtol=1e-5)


def test_another_grid_of_the_fixed_world(transform):
    like = grid(np.diag([1.0, -1, 1]), (1.0, 1.0, 1.0), (7, 6, 5))
    image = scan(transform.moving)
    moved = transform.warp_image(image, like)
    assert Geometry.of_image(moved).same_as(like)
    there = transform.moving.to_voxels(transform.points_to_moving(places_of(like).reshape(-1, 3)))
    expected = map_coordinates(voxels_of(image).astype(float), there.T, order=1)
    assert_allclose(voxels_of(moved).ravel(), expected, atol=5e-3)


def test_a_fill_that_the_pixel_type_lacks_is_refused(transform):
    with pytest.raises(ValueError, match="fill=-1 is no uint8"):
        transform.warp_image(scan(transform.moving, np.uint8), fill=-1.0)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_labels_keep_their_values(transform, kind):
    blocks = np.add.outer(np.arange(21) // 6 * 4, np.add.outer(np.arange(15) // 5, np.arange(19) // 7)) * 7
    labels = transform.moving.as_itk(blocks.astype(kind))
    nearest = voxels_of(transform.warp_labels(labels))
    assert nearest.dtype == kind and set(np.unique(nearest)) <= {0, *np.unique(blocks)}
    voxels = voxels_there(transform)
    inside = ((voxels >= 0) & (voxels <= np.array(MOVING_SHAPE).reshape(3, 1, 1, 1) - 1)).all(0)
    off_ties = inside & (np.abs(voxels % 1 - 0.5) > 1e-3).all(0)
    assert_array_equal(nearest[off_ties], map_coordinates(blocks, voxels, order=0)[off_ties])
    linear = voxels_of(transform.warp_labels(labels, "linear"))
    assert linear.dtype == kind
    values = np.unique(blocks)
    shares = np.stack([map_coordinates((blocks == value).astype(float), voxels, order=1) for value in values])
    ordered = np.sort(shares, 0)
    clear = inside & (ordered[-1] - ordered[-2] > 1e-3)
    assert clear.mean() > 0.2
    assert_array_equal(linear[clear], values[shares.argmax(0)][clear])


def test_labels_that_are_no_whole_numbers_are_refused(transform):
    with pytest.raises(ValueError, match="no label map"):
        transform.warp_labels(transform.moving.as_itk(np.full(MOVING_SHAPE, 0.5, np.float32)))
    with pytest.raises(ValueError, match="nearest or linear"):
        transform.warp_labels(scan(transform.moving, np.uint8), "cubic")
