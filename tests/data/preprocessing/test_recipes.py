"""Recipes: their options, and that what they make lies where it lay, in any orientation."""

import inspect
import json
from dataclasses import dataclass

import nibabel
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from toy_scans import oblique_affine

from regcascade.data.datasets.phantom import Phantom
from regcascade.data.preprocessing.recipes import RECIPES, Generic, Recipe, build_recipe

SPECS = [
    {"name": "generic"},
    {"name": "generic", "spacing": [1, 1.5, 2], "size": [20, 24, 16], "fit": "crop_pad", "pad": "edge"},
    {"name": "generic", "size": [20, 24, 16], "fit": "resample", "intensity": "window", "window": [300, 50]},
    {"name": "liver"},
    {
        "name": "liver",
        "crop": "labels",
        "crop_labels": [2, 1],
        "margin": 0.0,
        "size": [20, 24, 16],
        "orientation": "LPS",
    },
    {"name": "brain"},
    {"name": "brain", "mask": "file", "spacing": [2, 2, 2], "percentiles": [0, 100], "size": [20, 24, 16]},
]


def meta(voxels: np.ndarray, affine: np.ndarray) -> MetaTensor:
    tensor = torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))[None]
    return MetaTensor(tensor, affine=torch.from_numpy(affine))


def turned(volume: MetaTensor, axes: str) -> MetaTensor:
    """The same volume with other array axes, turned by nibabel."""
    affine = np.asarray(volume.affine)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    image = nibabel.Nifti1Image(volume.numpy()[0], affine).as_reoriented(change)
    return meta(image.get_fdata(), image.affine)


def world(volume: MetaTensor) -> np.ndarray:
    """Where each voxel of a volume lies, `(X, Y, Z, 3)`, in mm."""
    grid = np.stack(np.meshgrid(*map(np.arange, volume.shape[1:]), indexing="ij"), axis=-1)
    return apply_affine(np.asarray(volume.affine), grid)


AFFINE = oblique_affine((0.9, 1.7, 2.5))
SHAPE = (44, 30, 22)
CENTRE = apply_affine(AFFINE, [20.3, 14.2, 11.1])
SLOPE = np.array([2.0, -1.0, 0.5])


def scene() -> tuple[MetaTensor, MetaTensor, MetaTensor]:
    """A linear ramp in the world, labels that are two shells around a point of it, and the ball they make as a mask."""
    empty = meta(np.zeros(SHAPE), AFFINE)
    distance = np.linalg.norm(world(empty) - CENTRE, axis=-1)
    ramp = (world(empty) - CENTRE) @ SLOPE + 40
    labels = np.where(distance < 8, 1, np.where(distance < 14, 2, 0))
    return meta(ramp, AFFINE), meta(labels, AFFINE), meta(distance < 14, AFFINE)


ON_SCENE = [
    {"name": "generic", "spacing": [1.2, 1.2, 1.2], "size": [30, 34, 36]},
    {"name": "generic", "spacing": [2, 1, 3], "size": [20, 60, 16]},
    {"name": "generic", "size": [40, 35, 33], "fit": "resample"},
    {"name": "generic", "size": [50, 20, 30], "fit": "crop_pad", "orientation": "SLP"},
    {"name": "liver", "crop": "labels", "size": [30, 28, 26], "window": [60, 40]},
    {"name": "liver", "crop": "labels", "crop_labels": [1], "size": [30, 28, 26], "window": [60, 40]},
    {"name": "brain", "mask": "file", "size": [40, 40, 40]},
    {"name": "brain", "mask": "labels", "spacing": [1.5, 2, 1], "size": [20, 13, 40]},
    {"name": "brain", "size": [60, 60, 60]},
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_recipe_is_plain_values_and_can_be_built_again(spec):
    recipe = build_recipe(spec)
    options = recipe.as_dict()
    assert set(options) == {"name", *inspect.signature(type(recipe)).parameters} - {"transforms"}
    assert {key: options[key] for key in spec} == spec
    assert build_recipe(json.loads(json.dumps(options))) == recipe
    assert build_recipe(options).as_dict() == options


def test_the_defaults_are_those_of_the_names():
    for name in ("generic", "liver", "brain"):
        options = build_recipe(name).as_dict()
        assert options["size"] == [128, 128, 128] and options["orientation"] == "RAS"
    assert build_recipe("liver").as_dict()["window"] == [290.0, 120.0]


@pytest.mark.parametrize("spec", ON_SCENE)
def test_everything_stays_where_it_lies_in_the_world(spec):
    image, labels = build_recipe(spec)(*scene())
    size = tuple(spec["size"])
    assert image.shape == labels.shape == (1, *size)
    assert image.dtype == torch.float32 and labels.dtype == torch.int16
    assert image.min() >= 0 and image.max() <= 1
    assert set(labels.unique().tolist()) <= {0, 1, 2}
    np.testing.assert_allclose(image.affine, labels.affine)
    places, values = world(image), image.numpy()[0]
    # The ramp is still the same linear function of the world's coordinates, wherever it is not clipped, padded or at
    # the scan's border.
    inner = np.linalg.norm(places - CENTRE, axis=-1) < 9
    ramp = (places - CENTRE) @ SLOPE + 40
    seen = inner & (values > 0.001) & (values < 0.999)
    assert seen.sum() > 300
    slope, start = np.polyfit(ramp[seen], values[seen], 1)
    np.testing.assert_allclose(values[seen], slope * ramp[seen] + start, atol=5e-4)
    # The shells are around the same point, to the accuracy of a voxel of the raw scan.
    distance = np.linalg.norm(places - CENTRE, axis=-1)
    coarsest = max(*voxel_sizes(AFFINE), *voxel_sizes(np.asarray(image.affine)))
    found = labels.numpy()[0]
    assert (found[distance < 8 - coarsest] == 1).all()
    assert (found[(distance > 8 + coarsest) & (distance < 14 - coarsest)] == 2).all()
    assert (found[distance > 14 + coarsest] == 0).all()
    middle = places[found == 1].mean(0)
    np.testing.assert_allclose(middle, CENTRE, atol=0.3 * coarsest)


@pytest.mark.parametrize("axes", ["LPS", "SAR", "PIL"])
@pytest.mark.parametrize("spec", ON_SCENE[::2])
def test_the_orientation_of_the_file_changes_nothing(spec, axes):
    recipe = build_recipe(spec)
    volumes = scene()
    image, labels = recipe(*volumes)
    again, labels_again = recipe(*(turned(volume, axes) for volume in volumes))
    np.testing.assert_allclose(again, image, atol=1e-5)
    assert torch.equal(labels_again.as_tensor(), labels.as_tensor())
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-4)


@pytest.mark.parametrize("spec", ON_SCENE[:1] + ON_SCENE[4:5] + ON_SCENE[6:7])
def test_the_raw_volumes_are_left_alone(spec):
    volumes = scene()
    build_recipe(spec)(*volumes)
    for volume, fresh in zip(volumes, scene(), strict=True):
        assert torch.equal(volume.as_tensor(), fresh.as_tensor())
        np.testing.assert_array_equal(volume.affine, fresh.affine)


def test_labels_are_replaced_before_all_else():
    scan, labels, _ = scene()
    values = sorted(set(labels.unique().int().tolist()) - {0})
    spec = {"name": "generic", "size": [20, 24, 16], "fit": "crop_pad"}
    _, before = build_recipe(spec)(scan, labels)
    recipe = build_recipe({**spec, "relabel": {values[0]: 0, values[1]: values[0]}})
    _, after = recipe(scan, labels)
    torch.testing.assert_close(after == values[0], before == values[1])
    assert values[1] not in after.unique()
    assert build_recipe(json.loads(json.dumps(recipe.as_dict()))) == recipe
    with pytest.raises(ValueError, match="relabel"):
        build_recipe({**spec, "relabel": {"liver": 2}})


def test_a_scan_without_labels_gives_none():
    scan, _, mask = scene()
    for spec in (ON_SCENE[0], ON_SCENE[6]):
        image, labels = build_recipe(spec)(scan, None, mask)
        assert labels is None and image.shape == (1, *spec["size"])


def test_large_labels_become_int32():
    scan, labels, _ = scene()
    _, fitted = build_recipe(ON_SCENE[2])(scan, labels * 20000)
    assert fitted.dtype == torch.int32 and fitted.unique().tolist() == [0, 20000, 40000]


def test_the_array_axes_lead_right_front_and_up_unless_asked_otherwise():
    for spec, axes in ((ON_SCENE[2], "RAS"), (ON_SCENE[3], "SLP")):
        image, _ = build_recipe(spec)(turned(scene()[0], "PIR"))
        assert "".join(nibabel.aff2axcodes(np.asarray(image.affine))) == axes


def test_generic_pads_by_a_value_or_the_edge():
    scan, labels, _ = scene()
    padded, fitted = Generic(size=(60, 30, 22), pad=0.5)(scan, labels)
    assert (padded[0, :8] == 0.5).all() and (fitted[0, :8] == 0).all()
    edge, _ = Generic(size=(60, 30, 22), pad="edge")(scan)
    assert torch.equal(edge[0, 0].as_tensor(), edge[0, 8].as_tensor())


def phantom(axes: str = "LPS") -> tuple[MetaTensor, MetaTensor]:
    cases = Phantom(1, (96, 72, 72))
    affine = np.diag([-3.75, -4.0, 4.0, 1.0])
    affine[:3, 3] = [150, 90, -800]
    volumes = meta(cases.hounsfield(0)[0].numpy(), affine), meta(cases[0].labels[0].numpy(), affine)
    return tuple(turned(volume, axes) for volume in volumes)


def test_liver_finds_crops_and_windows_the_phantoms_liver():
    recipe = build_recipe({"name": "liver", "size": [48, 48, 48]})
    scan, labels = phantom()
    image, fitted = recipe(scan, labels)
    assert fitted.unique().tolist() == [0, 1, 2, 3, 4]
    # All of the liver is in the crop, and fills a good part of it.
    volume = np.abs(np.linalg.det(np.asarray(image.affine)[:3, :3]))
    raw = (labels == 1).sum() * 3.75 * 16
    assert float((fitted == 1).sum()) * volume == pytest.approx(float(raw), rel=0.03)
    assert (fitted == 1).float().mean() > 0.2
    inside = image[fitted == 1].median() * 290 - 25
    assert float(inside) == pytest.approx(float(scan[labels == 1].median()), abs=3)
    again, fitted_again = recipe(*phantom("SAR"))
    np.testing.assert_allclose(again, image, atol=1e-5)
    assert torch.equal(fitted_again.as_tensor(), fitted.as_tensor())
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-3)


def test_liver_crops_around_chosen_labels_with_a_margin():
    scan, labels, _ = scene()
    extents = []
    for options in ({"crop_labels": [1]}, {}, {"margin": 0.3}):
        image, _ = build_recipe({"name": "liver", "crop": "labels", "window": [60, 40], **options})(scan, labels)
        extents.append(voxel_sizes(np.asarray(image.affine)) * 128)
    # 16 mm and 28 mm wide, and 3.75 mm on both sides, or 8.4; rounded to voxels, of which the scan has no more.
    voxel = voxel_sizes(AFFINE)
    widest = voxel * SHAPE
    for extent, wanted in zip(extents, (16 + 7.5, 28 + 7.5, 28 + 16.8), strict=True):
        assert (np.abs(extent - np.minimum(wanted, widest)) < 3 * voxel).all()


def brain_scene() -> tuple[MetaTensor, MetaTensor]:
    """A bright skull around a dim brain that lies off the centre."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    voxels = np.random.default_rng(0).uniform(0, 5, (40, 40, 40))
    voxels[4:30, 4:30, 4:30] = 1000
    mask = np.zeros((40, 40, 40))
    mask[6:26, 8:26, 10:26] = 1
    voxels[mask > 0] = np.random.default_rng(1).uniform(100, 200, int(mask.sum()))
    return meta(voxels, affine), meta(mask, affine)


def test_brain_scales_what_the_mask_leaves_and_centres_it():
    scan, mask = brain_scene()
    image, labels = build_recipe({"name": "brain", "mask": "file", "size": [24, 24, 48], "percentiles": [5, 95]})(
        scan, mask, mask
    )
    # The box is 6..26, 8..26, 10..26; its centre 16, 17, 18 comes to 12, 12, 24.
    inside = labels[0] == 1
    assert inside[2:22, 3:21, 16:32].all() and inside.sum() == 20 * 18 * 16
    assert (image[0][~inside] == 0).all()
    raw = scan[mask > 0].numpy()
    low, high = np.percentile(raw, [5, 95])
    np.testing.assert_allclose(np.sort(image[0][inside]), np.sort(np.clip((raw - low) / (high - low), 0, 1)), atol=1e-5)


@pytest.mark.parametrize("size", [[30, 28, 44], [21, 40, 32], [24, 24, 48]])
def test_brain_centred_on_the_image_leaves_aligned_scans_aligned(size):
    """Two brains of one grid stay where they are, whatever their masks; else each moves by its own."""
    scan, mask = brain_scene()
    smaller = mask.clone()
    smaller[0, : int(mask[0].nonzero()[:, 0].float().mean())] = 0
    for centre, stays in (("image", True), ("mask", False)):
        recipe = build_recipe({"name": "brain", "mask": "file", "centre": centre, "size": size})
        affines = [np.asarray(recipe(scan, None, inside)[0].affine) for inside in (mask, smaller)]
        assert np.allclose(*affines) == stays
    image, labels = build_recipe({"name": "brain", "mask": "file", "centre": "image", "size": list(scan.shape[1:])})(
        scan, mask, mask
    )
    turned = build_recipe({"name": "generic", "size": list(scan.shape[1:])})(scan, mask)
    np.testing.assert_allclose(image.affine, turned[0].affine)
    assert torch.equal(labels.as_tensor(), turned[1].as_tensor())


def test_brain_takes_a_stripped_scan_without_a_mask():
    scan, mask = brain_scene()
    stripped = scan * mask
    recipe = {"name": "brain", "size": [24, 24, 48]}
    wanted, _ = build_recipe({**recipe, "mask": "file"})(stripped, None, mask)
    found, _ = build_recipe(recipe)(stripped)
    assert torch.equal(found.as_tensor(), wanted.as_tensor())


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("generic", "size", [1, 2]),
        ("generic", "size", 128),
        ("generic", "spacing", [1, 1]),
        ("generic", "spacing", [1, 0, 1]),
        ("generic", "spacing", 1.0),
        ("generic", "fit", "stretch"),
        ("generic", "pad", 2.0),
        ("generic", "intensity", "robust"),
        ("generic", "percentiles", [99, 1]),
        ("generic", "window", [0, 10]),
        ("generic", "orientation", "RAR"),
        ("generic", "orientation", "ras"),
        ("liver", "orientation", ""),
        ("liver", "crop", "organ"),
        ("liver", "crop_labels", [1]),
        ("liver", "margin", -0.1),
        ("liver", "window", [290]),
        ("brain", "mask", "skull"),
        ("brain", "centre", "brain"),
        ("brain", "percentiles", [0, 101]),
        ("brain", "spacing", ["a", 1, 1]),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_bad_option_is_named(name, option, value):
    with pytest.raises(ValueError, match=rf"^{option}="):
        build_recipe({"name": name, option: value})


@pytest.mark.parametrize("values", [[], [0], [1.5], 3])
@pytest.mark.usefixtures("unchecked")
def test_bad_label_values_are_named(values):
    with pytest.raises(ValueError, match=r"^crop_labels="):
        build_recipe({"name": "liver", "crop": "labels", "crop_labels": values})


def test_unknown_recipes_and_options_are_named_with_the_known():
    with pytest.raises(ValueError, match=r"Unknown recipe 'livr'.*brain, generic, liver.*'liver'"):
        build_recipe("livr")
    with pytest.raises(ValueError, match=r"no option 'sise'.*Did you mean 'size'"):
        build_recipe({"name": "brain", "sise": [1, 2, 3]})


@pytest.mark.parametrize(
    ("spec", "given", "message"),
    [
        ({"name": "brain", "mask": "file"}, {}, "mask=file needs a mask of every scan"),
        ({"name": "brain", "mask": "labels"}, {}, "mask=labels needs a label map"),
        ({"name": "brain", "mask": "file"}, {"mask": 0.0}, "mask of the brain is empty"),
        ({"name": "brain", "mask": "file", "percentiles": [50, 50.001]}, {"mask": 1.0, "flat": True}, "is 7; widen"),
        ({"name": "liver"}, {"flat": True}, "no liver is found"),
        ({"name": "liver", "crop": "labels"}, {}, "crop=labels needs a label map"),
        ({"name": "liver", "crop": "labels"}, {"labels": 0.0}, "no label above 0"),
        ({"name": "liver", "crop": "labels", "crop_labels": [3]}, {"labels": 1.0}, r"no label of \[3\]"),
        ({"name": "liver", "crop": "labels", "window": [10, 900]}, {"labels": 1.0}, r"lie outside window=\[10,900\]"),
        ({"name": "generic"}, {"flat": True}, "widen percentiles, or use intensity=window"),
        ({"name": "generic"}, {"labels": 0.5}, "labels must be whole numbers"),
        ({"name": "generic"}, {"labels": -1.0}, "labels must be whole numbers"),
    ],
)
def test_a_scan_that_a_recipe_cannot_take_is_refused(spec, given, message):
    scan, ones = scene()[0], meta(np.ones(SHAPE), AFFINE)
    scan = ones * 7 if given.get("flat") else scan
    labels, mask = (ones * given[key] if key in given else None for key in ("labels", "mask"))
    with pytest.raises(ValueError, match=message):
        build_recipe(spec)(scan, labels, mask)


@pytest.mark.parametrize(("key", "what"), [("labels", "label map"), ("mask", "mask")])
def test_another_shape_is_refused(key, what):
    with pytest.raises(ValueError, match=rf"its {what} has the shape \(3, 3, 3\), but the image has \(44, 30, 22\)"):
        build_recipe("generic")(scene()[0], **{key: meta(np.ones((3, 3, 3)), np.eye(4))})


def test_how_a_header_is_rounded_does_not_move_the_grid():
    scan = scene()[0]
    recipe = build_recipe({"name": "generic", "spacing": [1.1, 1.1, 1.1], "size": [48, 64, 64]})
    exact, _ = recipe(scan)
    rounded, _ = recipe(meta(scan[0].numpy(), AFFINE.astype(np.float32).astype(float)))
    np.testing.assert_allclose(rounded.affine, exact.affine, atol=1e-4)
    np.testing.assert_allclose(rounded, exact, atol=1e-4)


def test_a_recipe_of_ones_own(monkeypatch):
    monkeypatch.setattr(RECIPES, "_classes", dict(RECIPES._classes))

    @RECIPES.register("own")
    @dataclass(frozen=True, kw_only=True)
    class Own(Recipe):
        factor: float = 2.0

        def apply(self, scan, labels, mask):
            return scan * self.factor, labels

    recipe = build_recipe({"name": "own", "factor": 0.5})
    of_all = {"size": [128, 128, 128], "orientation": "RAS", "relabel": None}
    assert recipe.as_dict() == {"name": "own", **of_all, "factor": 0.5}
    image, labels = recipe(meta(np.ones(SHAPE), AFFINE))
    assert (image == 0.5).all() and labels is None


def test_generic_is_black_outside_a_mask_whose_scan_still_says_what_is_white():
    scan, mask = brain_scene()
    recipe = {"name": "generic", "size": [24, 24, 48], "percentiles": [0, 100]}
    whole, _ = build_recipe(recipe)(scan)
    masked, _ = build_recipe(recipe)(scan, None, mask)
    inside, _ = build_recipe({**recipe, "intensity": "window", "window": [1, 0.5]})(mask)
    assert torch.equal(masked, whole * inside) and 0 < int(inside.sum()) < inside.numel()
