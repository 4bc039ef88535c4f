"""Transforms of a known displacement, on grids of every orientation, and what NumPy and SciPy make of them."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from regcascade.geometry.grid import Geometry
from regcascade.geometry.transform import Transform

FIXED_SHAPE, MOVING_SHAPE = (17, 22, 13), (21, 15, 19)

LINEAR = np.array([[1.05, 0.06, -0.02, 1.5], [-0.05, 0.94, 0.04, -2.0], [0.03, -0.05, 1.06, 1.0], [0, 0, 0, 1]])


def turned(degrees_z, degrees_x):
    a, b = np.deg2rad([degrees_z, degrees_x])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return about_z @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])


def grid(axes, spacing, shape, centre=(4.0, -7.0, 11.0)):
    """A grid about a place of the world, RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes) * spacing
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


GRIDS = {
    "RAS to LPS": (np.eye(3), (1.0, 1.0, 1.0), np.diag([-1.0, -1, 1]), (1.1, 0.9, 1.0)),
    "oblique to RAS, anisotropic": (turned(25, -14), (0.8, 0.9, 2.5), np.eye(3), (1.5, 1.2, 1.3)),
    "flipped to oblique": (np.diag([1.0, -1, -1]), (0.7, 1.0, 1.6), turned(-33, 40), (1.0, 1.4, 1.2)),
    "permuted to flipped": (np.eye(3)[[2, 0, 1]], (1.2, 0.8, 1.0), np.diag([-1.0, 1, 1]), (0.9, 1.3, 1.0)),
}


def displacement_at(places, size=1.0):
    """A smooth displacement, mm, of a place of the world: no more than 2.2 mm, changing by less than half a mm a mm."""
    x, y, z = np.moveaxis(places, -1, 0) - np.array([4.0, -7.0, 11.0]).reshape(3, *[1] * (places.ndim - 1))
    parts = [np.sin(0.21 * x + 0.1 * y), 0.8 * np.cos(0.15 * y - 0.2 * z), np.sin(0.25 * z) * np.cos(0.12 * x)]
    return 1.3 * size * np.stack(parts, -1)


def coordinates(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float)


def places_of(geometry):
    return coordinates(geometry.shape) @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]


@pytest.fixture(params=GRIDS, scope="module")
def transform(request):
    fixed_axes, fixed_spacing, moving_axes, moving_spacing = GRIDS[request.param]
    fixed = grid(fixed_axes, fixed_spacing, FIXED_SHAPE)
    moving = grid(moving_axes, moving_spacing, MOVING_SHAPE, centre=(6.0, -9.0, 12.0))
    middle = np.eye(4)
    middle[:3, 3] = [4.0, -7.0, 11.0]
    affine = middle @ LINEAR @ np.linalg.inv(middle)
    return Transform(fixed, moving, affine, displacement_at(places_of(fixed)).astype(np.float32))


def scan(geometry, kind=np.float32, seed=3):
    return geometry.as_itk(np.random.default_rng(seed).integers(20, 250, geometry.shape).astype(kind))


def there(transform):
    """Where the voxels of the fixed grid lie in the moving world, by NumPy alone."""
    places = places_of(transform.fixed) + transform.displacement.astype(float)
    return places @ transform.affine[:3, :3].T + transform.affine[:3, 3]


def voxels_there(transform):
    inverse = np.linalg.inv(transform.moving.affine)
    return np.moveaxis(there(transform) @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)


def fixed_points(transform, count=50, seed=5):
    """Places well inside the fixed grid."""
    inside = np.random.default_rng(seed).uniform(2, np.array(transform.fixed.shape) - 3.0, (count, 3))
    return transform.fixed.to_world(inside)


def moved_by_numpy(transform, points):
    """By SciPy's trilinear interpolation, in float64."""
    voxels = transform.fixed.to_voxels(points).T
    steps = [map_coordinates(transform.displacement[..., a].astype(float), voxels, order=1) for a in range(3)]
    return (points + np.stack(steps, -1)) @ transform.affine[:3, :3].T + transform.affine[:3, 3]
