"""Maps as ITK's transforms: mm in LPS there, mm in RAS here."""

import numpy as np
from known_transforms import fixed_points, moved_by_numpy
from numpy.testing import assert_allclose

from regcascade.geometry.grid import LPS_TO_RAS, voxels_of
from regcascade.geometry.itk import affine_transform, field_image


def in_lps(transform, points):
    return np.array([transform.TransformPoint(point) for point in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]


def test_an_affine_map_takes_places_where_its_matrix_does(transform):
    points = fixed_points(transform)
    expected = points @ transform.affine[:3, :3].T + transform.affine[:3, 3]
    assert_allclose(in_lps(affine_transform(transform.affine), points), expected, atol=1e-9)


def test_a_composite_applies_the_displacement_first(transform):
    points = fixed_points(transform)
    assert_allclose(in_lps(transform.itk(), points), moved_by_numpy(transform, points), atol=1e-4)


def test_a_field_in_parts_is_the_field_turned_to_lps(transform):
    parts = ((rows, transform.displacement[rows]) for rows in (slice(0, 5), slice(5, None)))
    image = field_image(transform.fixed, parts)
    assert_allclose(voxels_of(image), transform.displacement @ LPS_TO_RAS[:3, :3], atol=0)
