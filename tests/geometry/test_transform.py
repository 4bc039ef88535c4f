"""A transform in native space: points, totals, composition and inverse, against SciPy and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from known_transforms import (
    FIXED_SHAPE,
    LINEAR,
    MOVING_SHAPE,
    coordinates,
    displacement_at,
    fixed_points,
    grid,
    moved_by_numpy,
    places_of,
    there,
    turned,
)
from numpy.testing import assert_allclose
from scipy.ndimage import map_coordinates

from regcascade.geometry.grid import voxels_of
from regcascade.geometry.transform import Transform


def test_points_go_there_and_back(transform):
    points = fixed_points(transform)
    points[7] = np.nan
    there = transform.points_to_moving(points)
    assert_allclose(there, moved_by_numpy(transform, points), atol=1e-4)
    assert_allclose(transform.points_to_fixed(there), points, atol=1e-5)
    assert np.isnan(there[7]).all() and np.isnan(transform.points_to_fixed(there)[7]).all()
    assert transform.points_to_fixed(np.empty((0, 3))).shape == (0, 3)


def test_points_beyond_the_grid_take_the_displacement_of_its_border(transform):
    corner = transform.fixed.to_world(np.array([[0.0, 0, 0], [-9, -8, -7]]))
    there = transform.points_to_moving(corner)
    step = transform.affine[:3, :3] @ (corner[1] - corner[0])
    assert_allclose(there[1] - there[0], step, atol=1e-5)
    assert_allclose(transform.points_to_fixed(there), corner, atol=1e-5)


def test_a_point_lands_where_the_image_does(transform):
    blob = np.exp(-((places_of(transform.moving) - [6, -9, 12]) ** 2).sum(-1) / (2 * 2.5**2)).astype(np.float32)
    moved = voxels_of(transform.warp_image(transform.moving.as_itk(blob), fill=0.0))
    brightest = places_of(transform.fixed)[np.unravel_index(moved.argmax(), moved.shape)]
    landed = transform.points_to_fixed(np.array([[6.0, -9, 12]]))[0]
    assert (np.abs(transform.fixed.to_voxels((landed - brightest)[None] + transform.fixed.affine[:3, 3])) < 1.01).all()


def test_the_inverse_goes_back(transform):
    inverse = transform.inverse()
    assert inverse.transform.fixed is transform.moving and inverse.transform.moving is transform.fixed
    assert inverse.residual_mm.shape == inverse.reached.shape == MOVING_SHAPE
    voxels = places_of(transform.moving)[inverse.reached]
    assert 0.2 < inverse.reached.mean() < 1
    back = inverse.transform.points_to_moving(voxels)
    assert transform.fixed.contains(back).all()
    assert_allclose(transform.points_to_moving(back), voxels, atol=2e-3)
    assert inverse.residual_mm[inverse.reached].max() <= 1e-3
    outside = ~transform.fixed.contains(transform.points_to_fixed(places_of(transform.moving).reshape(-1, 3)))
    assert (outside.reshape(MOVING_SHAPE) == ~inverse.reached).mean() > 0.999


def test_composition_is_that_of_simpleitk(transform):
    other_grid = grid(turned(10, 20), (1.3, 0.9, 1.1), (14, 12, 16))
    vectors = displacement_at(places_of(other_grid)[..., ::-1], 0.7).astype(np.float32)
    then = Transform(other_grid, transform.fixed, np.linalg.inv(LINEAR), vectors)
    both = transform.compose(then)
    assert both.fixed is other_grid and both.moving is transform.moving
    chain = sitk.CompositeTransform([transform.itk(), then.itk()])  # ITK applies the last first
    inside = transform.fixed.contains(then.points_to_moving(places_of(other_grid).reshape(-1, 3)))
    assert inside.mean() > 0.2
    places = places_of(other_grid).reshape(-1, 3)[inside]
    by_itk = np.array([chain.TransformPoint(place) for place in (places * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    assert_allclose(there(both).reshape(-1, 3)[inside], by_itk, atol=1e-3)
    image = transform.moving.as_itk(np.moveaxis(places_of(transform.moving), -1, 0)[0].astype(np.float32))
    once = voxels_of(both.warp_image(image, fill=0.0))
    twice = voxels_of(then.warp_image(transform.warp_image(image, fill=0.0), fill=0.0))
    middle = (slice(4, -4),) * 3
    assert np.abs(once - twice)[middle].mean() < 0.1 < np.abs(once).mean()  # a ramp in mm


def test_the_total_says_where_each_voxel_lies(transform):
    assert_allclose(transform.total(), there(transform) - places_of(transform.fixed), atol=1e-4)


def test_a_flow_of_a_network_is_sampled_at_every_voxel_of_the_fixed_scan(transform):
    network = grid(turned(5, 8), (2.0, 2.2, 2.4), (12, 11, 13))
    flow = np.random.default_rng(0).standard_normal((3, *network.shape))
    made = Transform.from_flow(
        torch.from_numpy(flow)[None].float(), network.affine, transform.fixed, transform.moving, transform.affine
    )
    voxels = np.moveaxis(coordinates(FIXED_SHAPE), -1, 0).reshape(3, -1).T
    on_network = network.to_voxels(transform.fixed.to_world(voxels)).T
    within = ((on_network >= 0) & (on_network <= np.array(network.shape)[:, None] - 1)).all(0)
    assert within.any()
    expected = np.stack([map_coordinates(part, on_network, order=1, mode="nearest") for part in flow], -1)
    # Its voxel p goes to p + flow(p); in mm, from the same grid.
    there = network.to_world(on_network.T + expected) - network.to_world(on_network.T)
    assert_allclose(made.displacement.reshape(-1, 3), there, atol=2e-4)


@pytest.mark.parametrize("bad", ["nan", "shape", "affine"])
def test_what_is_no_transform_is_refused(transform, bad):
    vectors, affine = transform.displacement.copy(), transform.affine
    if bad == "nan":
        vectors[3, 4, 5, 1] = np.nan
    if bad == "shape":
        vectors = vectors[1:]
    if bad == "affine":
        affine = np.diag([1.0, 0, 1, 1])
    with pytest.raises(ValueError, match={"nan": "NaN", "shape": "shape", "affine": "invertible"}[bad]):
        Transform(transform.fixed, transform.moving, affine, vectors)
