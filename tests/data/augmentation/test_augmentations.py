"""Laws of every registered augmentation, and what flips, affine maps and intensities do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from regcascade.data.augmentation import AUGMENTATIONS, build_augmentation
from regcascade.data.augmentation.affine import AffineAugmentation, inverse
from regcascade.data.augmentation.flip import FlipAugmentation
from regcascade.data.augmentation.intensity import IntensityAugmentation

SIZE = (22, 31, 26)
SPACING = (1.0, 2.5, 0.8)
# Strong enough to show; every other augmentation is tried with its defaults.
STRONG = {
    "affine": {"name": "affine", "rotation": 25.0, "scaling": 0.15, "translation": 0.08},
    "bspline": {"name": "bspline", "scale": 0.6, "power": 1.0},
    "monai": {"name": "monai", "transforms": [{"name": "RandGaussianNoised", "prob": 1.0}, "RandBiasFieldd"]},
}
SPECS = [STRONG.get(name, name) for name in AUGMENTATIONS.names()] + [["flip", STRONG["affine"], "intensity"]]
AXES = torch.stack(torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in SIZE), indexing="ij"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(places: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.exp(-((AXES - place.view(3, 1, 1, 1)) ** 2).sum(0) / 8) for place in places])[:, None]


def batch_of_blobs(pairs: int = 3) -> dict:
    """A bright blob at the first landmark of each scan, its inside labelled 5; the second landmark is missing."""
    middle = (torch.tensor(SIZE) - 1) / 2
    places = middle + 6 * torch.rand(2, pairs, 3, generator=seeded(0)) - 3
    images = [blobs(role) for role in places]
    points = torch.stack([places, torch.full_like(places, float("nan"))], dim=2)
    return {
        "fixed": images[0], "moving": images[1],
        "fixed_labels": (images[0] > 0.5).long() * 5, "moving_labels": (images[1] > 0.5).long() * 5,
        "fixed_points": points[0], "moving_points": points[1],
        "fixed_spacing": torch.tensor([SPACING] * pairs), "moving_spacing": torch.tensor([SPACING] * pairs),
        "fixed_name": [f"f{k}" for k in range(pairs)], "moving_name": [f"m{k}" for k in range(pairs)],
    }  # fmt: skip


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[key], rtol=0, atol=0, equal_nan=True, msg=key)
        else:
            assert value == other[key]


@pytest.fixture(params=SPECS, ids=str)
def augmentation(request):
    return build_augmentation(request.param)


def test_the_generator_alone_decides(augmentation):
    before = torch.get_rng_state()
    first, again, other = (augmentation(batch_of_blobs(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal(first, again)
    assert not torch.equal(first["moving"], other["moving"])
    torch.manual_seed(9)
    without = augmentation(batch_of_blobs())
    torch.manual_seed(9)
    assert_equal(augmentation(batch_of_blobs()), without)


def test_a_batch_keeps_its_form_and_its_original(augmentation):
    batch, untouched = batch_of_blobs(), batch_of_blobs()
    changed = augmentation(batch, seeded(3))
    assert_equal(batch, untouched)
    assert changed.keys() == batch.keys()
    for key, value in batch.items():
        if isinstance(value, torch.Tensor):
            assert (changed[key].shape, changed[key].dtype, changed[key].device) == (
                value.shape, value.dtype, value.device,
            )  # fmt: skip
        if key.endswith(("name", "spacing")):
            assert changed[key] is value
    for role in ("fixed", "moving"):
        assert changed[role].isfinite().all() and changed[role].min() >= 0 and changed[role].max() <= 1
        assert set(changed[f"{role}_labels"].unique().tolist()) == {0, 5}
        assert changed[f"{role}_points"][:, 1].isnan().all()
    bare = {key: value for key, value in batch.items() if not key.endswith(("labels", "points"))}
    assert_equal(augmentation(bare, seeded(3)), {key: changed[key] for key in bare})


@pytest.mark.parametrize("seed", [4, 5])
def test_landmarks_and_labels_stay_with_the_image(augmentation, seed):
    changed = augmentation(batch_of_blobs(), seeded(seed))
    for role in ("fixed", "moving"):
        for image, labels, points in zip(*(changed[role + part] for part in ("", "_labels", "_points")), strict=True):
            # The inside of a blob is a few whole voxels, whose middle is only about its own.
            for weight, close in (
                ((image[0] - 0.6 * image.max()).clamp(min=0), 0.35),
                ((labels[0] == 5).float(), 0.75),
            ):
                centroid = (AXES * weight).sum((1, 2, 3)) / weight.sum()
                assert (centroid - points[0]).norm() < close


def test_every_pair_has_its_own_draw(augmentation):
    batch = batch_of_blobs(6)
    batch["moving"] = batch["moving"][:1].expand(6, -1, -1, -1, -1).contiguous()
    changed = augmentation(batch, seeded(6))["moving"]
    assert len({tuple(scan.flatten().tolist()) for scan in changed}) > 1


def test_a_list_applies_its_parts_in_turn():
    whole = build_augmentation(["flip", "none", STRONG["bspline"]])(batch_of_blobs(), seeded(7))
    generator = seeded(7)
    parts = build_augmentation("flip")(batch_of_blobs(), generator)
    assert_equal(whole, build_augmentation(STRONG["bspline"])(parts, generator))
    assert build_augmentation([]) is None and build_augmentation(["none"]) is None
    assert isinstance(build_augmentation(["flip"]), FlipAugmentation)


def test_the_docs_list_every_augmentation():
    table = (Path(__file__).parents[3] / "docs/architecture.md").read_text()
    row = next(line for line in table.splitlines() if "`AUGMENTATIONS`" in line)
    assert ", ".join(f"`{name}`" for name in AUGMENTATIONS.names()) in row


def test_flip_is_numpys_flip_and_keeps_what_corresponds():
    batch = batch_of_blobs()
    changed = FlipAugmentation(axes=[2, 0], probability=1.0)(batch, seeded(0))
    for role in ("fixed", "moving"):
        for key in (role, f"{role}_labels"):
            np.testing.assert_array_equal(changed[key], np.flip(batch[key].numpy(), (2, 4)))
        expected = batch[f"{role}_points"] * torch.tensor([-1, 1, -1]) + torch.tensor([SIZE[0] - 1, 0, SIZE[2] - 1])
        torch.testing.assert_close(changed[f"{role}_points"], expected, equal_nan=True)
    assert_equal(FlipAugmentation(axes=[0, 2], probability=1.0)(changed, seeded(0)), batch)
    assert_equal(FlipAugmentation(probability=0.0)(batch, seeded(0)), batch)


def test_each_axis_is_flipped_as_often_as_its_probability_says():
    images = torch.zeros(400, 1, 2, 2, 2)
    images[:, 0, 0, 0, 0] = 1
    changed = FlipAugmentation(axes=[0, 1], probability=0.25)({"fixed": images, "moving": images}, seeded(0))
    assert torch.equal(changed["fixed"], changed["moving"])
    shares = [(changed["fixed"].select(axis, 1).flatten(1).sum(1)).mean().item() for axis in (2, 3, 4)]
    assert shares[:2] == pytest.approx([0.25, 0.25], abs=0.07) and shares[2] == 0


def test_an_affine_map_is_scipys():
    batch = batch_of_blobs()
    augmentation = AffineAugmentation(rotation=30.0, scaling=0.2, translation=0.1)
    affine, changed = augmentation.map(batch, seeded(8)), augmentation(batch, seeded(8))
    centre = (np.array(SIZE) - 1) / 2
    for item in range(3):
        matrix, offset = affine.matrix[item].double().numpy(), affine.offset[item].double().numpy()
        moving = batch["moving"][item, 0].double().numpy()
        expected = affine_transform(moving, matrix, centre + offset - matrix @ centre, order=1, mode="nearest")
        np.testing.assert_allclose(changed["moving"][item, 0], expected, atol=1e-4)
    assert all(changed[key] is value for key, value in batch.items() if key.startswith("fixed"))


def test_an_affine_map_turns_in_millimetres_and_keeps_to_its_limits():
    batch = {"moving": torch.zeros(300, 1, 4, 8, 2), "moving_spacing": torch.tensor([SPACING] * 300)}
    rigid = AffineAugmentation(rotation=40.0, scaling=0.0, translation=0.25).map(batch, seeded(0))
    spacing = torch.tensor(SPACING)
    in_mm = (spacing[:, None] * rigid.matrix / spacing).double()
    identity = torch.eye(3, dtype=torch.float64).expand_as(in_mm)
    torch.testing.assert_close(in_mm @ in_mm.mT, identity, atol=1e-5, rtol=0)
    assert rigid.matrix.det().allclose(torch.ones(300), atol=1e-5)
    largest = rigid.offset.abs().amax(0)
    assert (largest <= torch.tensor([1.0, 2.0, 0.5])).all() and (largest > torch.tensor([0.9, 1.8, 0.45])).all()
    scaled = AffineAugmentation(rotation=0.0, scaling=0.5, translation=0.0).map(batch, seeded(0))
    factors = scaled.matrix.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(scaled.matrix, torch.diag_embed(factors))
    assert 1 / 1.5 <= factors.min() < 0.7 and 1.45 < factors.max() <= 1.5


def test_convention_rotations_are_those_about_axes_0_1_2_in_turn():
    batch = {"moving": torch.zeros(5, 1, 4, 8, 2), "moving_spacing": torch.ones(5, 3)}
    found = AffineAugmentation(rotation=90.0, scaling=0.0).map(batch, seeded(0)).matrix
    for matrix, drawn in zip(found.double().numpy(), torch.rand(5, 3, 3, generator=seeded(0)), strict=True):
        expected = np.eye(3)
        for axis, angle in enumerate((2 * drawn[0].double() - 1) * np.pi / 2):
            one, other = (axis + 1) % 3, (axis + 2) % 3
            turn = np.eye(3)
            turn[one, one] = turn[other, other] = np.cos(angle)
            turn[other, one], turn[one, other] = np.sin(angle), -np.sin(angle)
            expected = turn @ expected
        np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_the_inverse_of_an_affine_map_also_holds_outside():
    batch = batch_of_blobs()
    affine = AffineAugmentation(rotation=60.0, scaling=0.5, translation=0.5).map(batch, seeded(1))
    points = torch.rand(3, 7, 3, generator=seeded(2)) * 80 - 25
    centre = (torch.tensor(SIZE) - 1) / 2
    place = inverse(affine, points) - centre
    back = torch.einsum("bij,bkj->bki", affine.matrix, place) + centre + affine.offset[:, None]
    torch.testing.assert_close(back, points, atol=1e-3, rtol=1e-4)


def test_strengths_of_zero_leave_a_batch_as_it_is():
    batch = batch_of_blobs()
    still = AffineAugmentation(rotation=0.0, scaling=0.0, translation=0.0)(batch, seeded(0))
    plain = IntensityAugmentation(probability=1.0, gamma=0.0, bias=0.0, blur=0.0, noise=0.0)(batch, seeded(0))
    never = IntensityAugmentation(probability=0.0)(batch, seeded(0))
    for changed in (still, plain, never):
        for key in ("fixed", "moving", "fixed_points", "moving_points"):
            torch.testing.assert_close(changed[key], batch[key], atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("part", ["gamma", "bias", "blur", "noise"])
def test_each_part_of_intensity_changes_every_scan_by_itself(part):
    off = dict.fromkeys(("gamma", "bias", "blur", "noise"), 0.0)
    batch = batch_of_blobs()
    batch["moving"] = batch["fixed"].clone()
    changed = IntensityAugmentation(probability=1.0, **{**off, part: 1.0})(batch, seeded(0))
    scans = [*batch["fixed"], *changed["fixed"], *changed["moving"]]
    for index, scan in enumerate(scans[3:], 3):
        assert not any(torch.equal(scan, other) for other in scans[:index])
    for key in ("fixed_labels", "moving_labels", "fixed_points", "moving_points"):
        assert changed[key] is batch[key]


def test_the_strongest_intensities_stay_finite():
    augmentation = IntensityAugmentation(probability=1.0, gamma=3.0, bias=1.0, blur=4.0, noise=1.0)
    for seed in range(4):
        changed = augmentation(batch_of_blobs(2), seeded(seed))
        assert changed["moving"].isfinite().all() and changed["moving"].dtype == torch.float32


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["flip", "bsplin"], r"data\.augmentation=bsplin is not valid. Known: none, affine, bspline, flip, intensity"),
        ([{"name": "flip", "axis": 0}], "no option 'axis'. Known: axes, probability"),
        ({"name": "flip", "axes": [0, 3]}, r"data\.augmentation\.axes=\[0, 3\] is not valid"),
        ({"name": "flip", "axes": []}, r"data\.augmentation\.axes=\[\] is not valid"),
        ({"name": "flip", "probability": 1.5}, r"probability=1\.5 is not valid: give a number, 0 to 1"),
        ({"name": "affine", "rotation": 200.0}, r"rotation=200\.0 is not valid: give a number, 0 to 180"),
        ({"name": "affine", "scaling": -0.1}, r"scaling=-0\.1 is not valid: give a number, 0 or more"),
        ({"name": "affine", "translation": float("inf")}, "translation=inf is not valid"),
        ({"name": "affine", "translation": float("nan")}, "translation=nan is not valid"),
        ({"name": "intensity", "noise": 2.0}, r"noise=2\.0 is not valid: give a number, 0 to 1"),
        ({"name": "intensity", "gamma": "much"}, "gamma='much' is not of the right type"),
    ],
)
def test_bad_options_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation(spec)


def test_a_flipped_alignment_leads_where_the_flipped_scans_lie():
    alignment = torch.eye(4) + 0.1 * torch.randn(3, 4, 4, generator=seeded(4))
    alignment[:, 3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    batch = batch_of_blobs() | {"alignment": alignment}
    flipped = FlipAugmentation(axes=[0, 2], probability=1.0)(batch)
    place = torch.tensor([3.0, 4.0, 5.0, 1.0])
    there = alignment @ place
    for where in (place[None], there):
        where[:, 0], where[:, 2] = SIZE[0] - 1 - where[:, 0], SIZE[2] - 1 - where[:, 2]
    torch.testing.assert_close(flipped["alignment"] @ place, there, rtol=1e-4, atol=1e-4)
