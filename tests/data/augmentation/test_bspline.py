import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from regcascade.data.augmentation import (
    BSplineAugmentation,
    bspline_field,
    build_augmentation,
    pull_points,
)
from regcascade.geometry.warp import warp, warp_labels

SIZE = (13, 22, 17)


def reference_field(control: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """SciPy's B-splines, control points and their ring of zeros written out; one axis after the other."""
    field = np.pad(control, [(0, 0), (1, 1), (1, 1), (1, 1)])
    for axis, side in enumerate(size, start=1):
        n = control.shape[axis]
        # Padded control point m is centred on knot m + 2, which lies at m - 1 spacings of the axis.
        spline = BSpline(np.arange(n + 6) - 3.0, field, 3, axis=axis)
        field = spline((np.arange(side) + 0.5) * (n - 1) / side)
    return field


@pytest.mark.parametrize("shape", [(5, 5, 5), (4, 6, 3)])
def test_field_equals_scipys_splines(shape):
    control = np.random.default_rng(0).normal(size=(2, 3, *shape))
    field = bspline_field(torch.from_numpy(control), SIZE)
    assert field.dtype == torch.float64
    for item in range(2):
        np.testing.assert_allclose(field[item], reference_field(control[item], SIZE), atol=1e-12)


def test_a_control_point_moves_its_own_component_at_its_own_place():
    control = torch.zeros(1, 3, 5, 5, 5)
    control[0, 1, 1, 2, 3] = 1.0
    field = bspline_field(control, (16, 32, 64))
    assert field[:, [0, 2]].abs().max() == 0
    peak = np.unravel_index(int(field[0, 1].argmax()), (16, 32, 64))
    # A quarter, a half and three quarters along; the two voxels beside such a face are equally close.
    assert peak[0] in (3, 4) and peak[1] in (15, 16) and peak[2] in (47, 48)


def test_flipping_the_control_points_flips_the_field():
    control = torch.randn(1, 3, 5, 5, 5, dtype=torch.float64)
    for axis in (2, 3, 4):
        flipped = bspline_field(control.flip(axis), SIZE)
        torch.testing.assert_close(flipped, bspline_field(control, SIZE).flip(axis))


def test_components_follow_the_papers_law_and_the_side_of_their_axis():
    size = (16, 32, 64)
    image = torch.zeros(200, 1, *size)
    generator = torch.Generator().manual_seed(0)
    drawn = 2 * torch.rand((200, 3, 5, 5, 5), generator=torch.Generator().manual_seed(0)).double() - 1
    wanted = 0.4 * drawn.sign() * drawn.abs() ** 3 * torch.tensor([4.0, 8.0, 16.0]).view(1, 3, 1, 1, 1)
    field = BSplineAugmentation().field(image[:2], generator)
    for item in range(2):
        # The generator of a batch of 2 draws the first numbers of that of 200.
        np.testing.assert_allclose(field[item], reference_field(wanted[item].numpy(), size), atol=1e-4)


def blob_batch() -> dict:
    torch.manual_seed(0)
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in SIZE), indexing="ij")
    centres = torch.tensor([[6.0, 10.0, 8.0], [5.0, 12.5, 9.0]])
    grid = torch.stack(axes)
    image = torch.stack([torch.exp(-((grid - c.view(3, 1, 1, 1)) ** 2).sum(0) / 8) for c in centres])[:, None]
    return {
        "fixed": torch.rand(2, 1, *SIZE),
        "moving": image,
        "fixed_labels": torch.ones(2, 1, *SIZE, dtype=torch.int64),
        "moving_labels": (image > 0.5).long(),
        "fixed_points": centres[:, None].clone(),
        "moving_points": torch.stack([centres, torch.full((2, 3), float("nan"))], dim=1),
        "fixed_spacing": torch.ones(2, 3),
        "moving_spacing": torch.ones(2, 3),
        "fixed_name": ["a", "b"],
        "moving_name": ["c", "d"],
    }


def test_it_changes_the_moving_scan_alone():
    batch = blob_batch()
    before = {key: value.clone() for key, value in batch.items() if isinstance(value, torch.Tensor)}
    augmented = BSplineAugmentation()(batch, torch.Generator().manual_seed(3))
    field = BSplineAugmentation().field(batch["moving"], torch.Generator().manual_seed(3))
    torch.testing.assert_close(augmented["moving"], warp(batch["moving"], field))
    torch.testing.assert_close(augmented["moving_labels"], warp_labels(batch["moving_labels"], field))
    assert augmented["moving_labels"].dtype == torch.int64
    assert not torch.equal(augmented["moving"], batch["moving"])
    for key, value in before.items():
        torch.testing.assert_close(batch[key], value, equal_nan=True)
        if key.startswith("fixed"):
            torch.testing.assert_close(augmented[key], value, equal_nan=True)
    assert augmented["moving_name"] == ["c", "d"]


def test_points_go_where_the_image_goes():
    batch = blob_batch()
    augmented = BSplineAugmentation(scale=0.8, power=1.0)(batch, torch.Generator().manual_seed(1))
    moved, points = augmented["moving"], augmented["moving_points"]
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in SIZE), indexing="ij")
    for item in range(2):
        weight = (moved[item, 0] - 0.7).clamp(min=0)
        centroid = torch.stack([(axis * weight).sum() / weight.sum() for axis in axes])
        shift = (points[item, 0] - batch["moving_points"][item, 0]).norm()
        assert shift > 0.5, "a test that moves nothing shows nothing"
        assert (points[item, 0] - centroid).norm() < 0.35
    assert points[:, 1].isnan().all()


def test_pulled_points_invert_the_field():
    field = BSplineAugmentation().field(torch.zeros(1, 1, *SIZE), torch.Generator().manual_seed(5))
    points = torch.tensor([[[3.2, 17.9, 8.1], [10.0, 4.4, 13.0], [0.0, 0.0, 0.0]]])
    place = pull_points(points, field)
    for point, found in zip(points[0], place[0], strict=True):
        low = [min(max(int(c.floor()), 0), side - 1) for c, side in zip(found, SIZE, strict=True)]
        value = torch.zeros(3)
        for corner in np.ndindex(2, 2, 2):
            weight, at = 1.0, []
            for axis in range(3):
                coordinate = float(found[axis].clamp(0, SIZE[axis] - 1))
                fraction = coordinate - low[axis]
                weight *= fraction if corner[axis] else 1 - fraction
                at.append(min(low[axis] + corner[axis], SIZE[axis] - 1))
            value += weight * field[0][:, at[0], at[1], at[2]]
        torch.testing.assert_close(found + value, point, atol=1e-3, rtol=0)


def test_a_point_where_the_field_is_too_steep_is_marked_missing():
    # x -> x + 3 (x - 6): the iteration leaps from one side to the other.
    field = torch.zeros(1, 3, *SIZE)
    field[0, 0] = 3 * (torch.arange(13.0) - 6).view(-1, 1, 1)
    place = pull_points(torch.tensor([[[7.0, 5.0, 5.0]]]), field)
    assert place.isnan().all()


def test_it_repeats_with_the_state_of_the_generator():
    batch, augmentation = blob_batch(), BSplineAugmentation()
    torch.manual_seed(9)
    first, second = augmentation(batch), augmentation(batch)
    torch.manual_seed(9)
    torch.testing.assert_close(augmentation(batch)["moving"], first["moving"])
    assert not torch.equal(first["moving"], second["moving"])


def test_build():
    assert build_augmentation(None) is None
    assert build_augmentation("none") is None
    assert build_augmentation({"name": "none"}) is None
    assert isinstance(build_augmentation("bspline"), BSplineAugmentation)
    built = build_augmentation({"name": "bspline", "control_points": 7, "scale": 0.2})
    assert (built.control_points, built.scale, built.power) == (7, 0.2, 3.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bsplin", r"data\.augmentation=bsplin is not valid. Known: none, affine, bspline"),
        ({"name": "bspline", "points": 5}, "no option 'points'. Known: control_points, power, scale"),
        ({"name": "bspline", "control_points": 1}, r"control_points=1 is not valid"),
        ({"name": "bspline", "scale": -1.0}, r"scale=-1.0 is not valid"),
    ],
)
def test_build_refuses(spec, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation(spec)
