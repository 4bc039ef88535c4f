"""Recipes: what comes out lies where it was, whatever the axes of the raw scan."""

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from toy_scans import oblique_affine

from regcascade.data.recipes import build_recipe

SHAPE = (24, 30, 20)


def volume(array, affine):
    return MetaTensor(torch.as_tensor(array, dtype=torch.float32)[None], affine=torch.as_tensor(affine))


def head(affine):
    """A bright ball in a dim skull, its label, and its mask."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    distance = np.linalg.norm((grid - np.array([9, 16, 11])) * [1, 1, 1], axis=-1)
    brain = distance < 6
    image = np.where(brain, 100 - 5 * distance, np.where(distance < 8, 500.0, 0.0))
    labels = np.where(distance < 3, 7, 0)
    return [volume(array, affine) for array in (image, labels, brain)]


def reoriented(item, axes):
    image = nibabel.Nifti1Image(item[0].numpy(), np.asarray(item.affine))
    wanted = nibabel.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted))
    return volume(turned.get_fdata(), turned.affine)


def world_of(labels, value):
    voxels = (labels[0] == value).nonzero().double().mean(0).numpy()
    affine = np.asarray(labels.affine)
    return affine[:3, :3] @ voxels + affine[:3, 3]


SPECS = [
    {"name": "generic", "spacing": [1.0, 1.0, 2.0], "size": [26, 28, 24]},
    {"name": "generic", "size": [26, 28, 24], "fit": "resample"},
    {"name": "brain", "mask": "file", "size": [24, 26, 28]},
    {"name": "brain", "mask": "labels", "size": [16, 18, 16], "spacing": [0.9, 1.0, 1.2]},
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_result_does_not_depend_on_the_axes_and_lies_where_it_was(spec):
    affine = oblique_affine((1.1, 0.9, 1.4))
    items = head(affine)
    image, labels = build_recipe(spec)(*items)
    assert image.shape == labels.shape == (1, *spec["size"])
    assert image.min() >= 0 and image.max() <= 1 and image.max() > image.min()
    assert labels.unique().tolist() == [0, 7] and not labels.dtype.is_floating_point
    np.testing.assert_allclose(world_of(labels, 7), world_of(items[1], 7), atol=0.5)
    turned = build_recipe(spec)(*(reoriented(item, "PIR") for item in items))
    torch.testing.assert_close(turned[0].as_tensor(), image.as_tensor(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(np.asarray(turned[0].affine), np.asarray(image.affine), atol=1e-3)


def test_the_brain_recipe_takes_off_the_skull_and_scales_what_is_left():
    scan, labels, mask = head(oblique_affine((1.0, 1.0, 1.0)))
    image, _ = build_recipe({"name": "brain", "mask": "file", "size": [24, 24, 24], "percentiles": [0.0, 100.0]})(
        scan, labels, mask
    )
    assert 800 < int((image > 0).sum()) < 1100  # a ball of radius 6 has 905 voxels; the skull would add as many
    inside = image[image > 0]
    assert inside.max() == 1 and 0.15 < inside.median() < 0.3  # half of a ball lies beyond 0.79 of its radius


def test_options_come_back_and_build_the_same():
    for spec in SPECS:
        written = build_recipe(spec).as_dict()
        assert json.loads(json.dumps(written)) == written == build_recipe(written).as_dict()
        assert {key: written[key] for key in spec} == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("brian", "Did you mean 'brain'"),
        ({"name": "brain", "mask": "yes"}, "mask=yes is not valid. Known: none, file, labels"),
        ({"name": "brain", "percentiles": [9.0, 3.0]}, "low < high"),
        ({"name": "generic", "spacing": [1.0, 0.0, 1.0]}, "three numbers above 0"),
        ({"name": "generic", "fit": "squeeze"}, "Known: crop_pad, resample"),
    ],
)
def test_bad_options_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_recipe(spec)


def test_what_a_recipe_cannot_do_is_told():
    scan, labels, mask = head(oblique_affine((1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="mask=file needs a mask of every scan"):
        build_recipe({"name": "brain", "mask": "file"})(scan, labels, None)
    with pytest.raises(ValueError, match="the mask of the brain is empty"):
        build_recipe({"name": "brain", "mask": "file"})(scan, labels, mask * 0)
    with pytest.raises(ValueError, match="lie outside"):
        build_recipe({"name": "generic", "intensity": "window", "window": [10.0, 5000.0]})(scan)
