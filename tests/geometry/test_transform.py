"""A transform in native space: against SciPy in float64, SimpleITK and ANTs, on grids of every orientation."""

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates

from regcascade.data.io.transforms import read_transform, write_transform
from regcascade.geometry.grid import Geometry, voxels_of
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


@pytest.mark.parametrize("name", ["t.h5", "t.tfm", "t.nii.gz", "t.nii", "t.mha", "t.nrrd"])
def test_simpleitk_gives_the_same_with_the_file(transform, name, tmp_path):
    image = scan(transform.moving)
    write_transform(transform, tmp_path / name)
    if name in ("t.h5", "t.tfm"):
        read = sitk.ReadTransform(tmp_path / name)
    else:
        read = sitk.DisplacementFieldTransform(sitk.ReadImage(tmp_path / name, sitk.sitkVectorFloat64))
    expected = sitk.Resample(image, transform.fixed.reference(), read, sitk.sitkLinear, 20.0)
    moved = voxels_of(transform.warp_image(image, fill=20.0))
    differing = np.abs(moved - voxels_of(expected)) > 0.02
    assert differing.mean() < 0.002  # float32 decides what lies within the border of the moving scan
    points = fixed_points(transform)
    by_itk = np.array([read.TransformPoint(point) for point in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    assert_allclose(transform.points_to_moving(points), by_itk, atol=1e-4)
    loaded = read_transform(tmp_path / name, transform.moving)
    assert_allclose(loaded.points_to_moving(points), moved_by_numpy(transform, points), atol=1e-4)
    assert loaded.fixed.same_as(transform.fixed)


def test_our_h5_needs_nothing_else_and_is_exact(transform, tmp_path):
    write_transform(transform, tmp_path / "t.h5")
    loaded = read_transform(tmp_path / "t.h5")
    assert_array_equal(loaded.displacement, transform.displacement)
    assert_array_equal(loaded.affine, transform.affine)
    assert_array_equal(loaded.moving.affine, transform.moving.affine)
    assert loaded.moving.shape == transform.moving.shape
    assert [path.name for path in tmp_path.iterdir()] == ["t.h5"]


def test_ants_gives_the_same_with_the_file(transform, tmp_path):
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    image = scan(transform.moving)
    for name, each in (("moving", image), ("fixed", scan(transform.fixed))):
        sitk.WriteImage(each, tmp_path / f"{name}.nii.gz")
    expected = voxels_of(transform.warp_image(image, fill=0.0))
    for name in ("t.h5", "t.nii.gz"):
        write_transform(transform, tmp_path / name)
        images = (ants.image_read(str(tmp_path / f"{which}.nii.gz")) for which in ("fixed", "moving"))
        moved = ants.apply_transforms(*images, transformlist=[str(tmp_path / name)], interpolator="linear")
        assert (np.abs(moved.numpy() - expected) > 0.05).mean() < 0.005


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


def test_the_known_map_survives_saving_inverting_and_composing(transform, tmp_path):
    """There by the transform, back by the inverse of the one that was read again: nothing has moved."""
    write_transform(transform, tmp_path / "t.h5")
    inverse = read_transform(tmp_path / "t.h5").inverse()
    write_transform(inverse.transform, tmp_path / "inverse.h5")
    back = read_transform(tmp_path / "inverse.h5")
    nothing = transform.compose(back)  # the moving scan onto the fixed one and back, on the moving grid
    places = places_of(transform.moving)
    moved = there(nothing)
    assert_allclose(moved[inverse.reached], places[inverse.reached], atol=2e-3)


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


def test_a_composite_of_somebody_elses_is_read(transform, tmp_path):
    field = sitk.DisplacementFieldTransform(transform.itk().GetNthTransform(1))
    rigid = sitk.Euler3DTransform((5.0, 3.0, 1.0), 0.1, -0.2, 0.15, (2.0, 1.0, -3.0))
    scale = sitk.AffineTransform([1.1, 0, 0.1, 0, 0.9, 0, 0, 0, 1], [1.0, 2, 3], [9.0, 9, 9])
    chain = sitk.CompositeTransform([rigid, sitk.CompositeTransform([scale, field])])
    points = fixed_points(transform)
    expected = np.array([chain.TransformPoint(point) for point in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    chain.FlattenTransform()
    for name in ("other.h5", "other.tfm"):
        sitk.WriteTransform(chain, tmp_path / name)
        loaded = read_transform(tmp_path / name)
        assert_allclose(loaded.points_to_moving(points), expected, atol=1e-4)
        assert loaded.moving.same_as(transform.fixed)
    sitk.WriteTransform(field, tmp_path / "field.h5")
    assert_allclose(read_transform(tmp_path / "field.h5").affine, np.eye(4))


def test_files_that_are_no_transform_are_told(transform, tmp_path):
    field = sitk.DisplacementFieldTransform(transform.itk().GetNthTransform(1))
    sitk.WriteTransform(sitk.CompositeTransform([field, sitk.TranslationTransform(3)]), tmp_path / "order.h5")
    sitk.WriteTransform(sitk.Euler3DTransform(), tmp_path / "rigid.tfm")
    sitk.WriteImage(scan(transform.fixed), tmp_path / "image.nii.gz")
    sitk.WriteImage(sitk.Image([4, 4, 4, 3], sitk.sitkFloat32), tmp_path / "4d.nii.gz")
    (tmp_path / "text.h5").write_text("no transform")
    (tmp_path / "text.tfm").write_text("no transform")
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "model.ckpt").write_text("")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["volume"] = np.zeros(3)
    vectors = np.zeros((3, 4, 5, 3), np.float32)
    vectors[0, 0, 0, 0] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), tmp_path / "nan.nii.gz")
    messages = {
        "order.h5": "must be of affine maps and one displacement field",
        "rigid.tfm": "must be of affine maps and one displacement field",
        "image.nii.gz": "is no displacement",
        "4d.nii.gz": "is no displacement",
        "text.h5": "cannot be read",
        "text.tfm": "cannot be read",
        "cut.nii.gz": "cannot be read",
        "model.ckpt": "is no transform",
        "data.h5": "cannot be read",
        "nan.nii.gz": "NaN",
        "none.h5": "does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message) as error:
            read_transform(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_files_that_cannot_be_written_are_told(transform, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("nowhere/t.h5", "nowhere/t.nii.gz", "file/t.tfm"):
        with pytest.raises(ValueError, match="cannot be written"):
            write_transform(transform, tmp_path / name)
    with pytest.raises(ValueError, match="ends in one of"):
        write_transform(transform, tmp_path / "t.npz")
    sheared = transform.fixed.affine.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    crooked = Transform(Geometry(FIXED_SHAPE, sheared), transform.moving, transform.affine, transform.displacement)
    with pytest.raises(ValueError, match="sheared"):
        write_transform(crooked, tmp_path / "t.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
