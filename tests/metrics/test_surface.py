import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from regcascade.metrics.surface import surface_measures

SIZE = (25, 17, 21)
SPACINGS = torch.tensor([[1.0, 2.5, 0.8], [0.7, 0.7, 3.0]])
LABELS = [5, 1]


def blobs(seed):
    """Two random smooth labels, 1 and 5, that do not touch the border."""
    noise = np.random.default_rng(seed).normal(size=(2, *SIZE))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 2))
    labels = np.where(smooth.max(0) > 0.02, np.array([1, 5])[smooth.argmax(0)], 0)
    for axis in range(3):
        labels.swapaxes(0, axis)[[0, -1]] = 0
    return torch.from_numpy(labels)[None, None]


def maurer_distances(a, b, spacing):
    """Distances in mm from each surface voxel of one mask to the other's surface, by SimpleITK, both ways."""
    surfaces, maps = [], []
    for mask in (a, b):
        image = sitk.GetImageFromArray(mask.numpy().transpose(2, 1, 0).astype(np.uint8))
        image.SetSpacing(spacing)
        contour = sitk.BinaryContour(image, fullyConnected=False)
        distance = sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True)
        surfaces.append(sitk.GetArrayFromImage(contour) > 0)
        maps.append(np.abs(sitk.GetArrayFromImage(distance)))
    return maps[1][surfaces[0]], maps[0][surfaces[1]]


def test_surface_distances_agree_with_simpleitk():
    moved, fixed = torch.cat([blobs(0), blobs(1)]), torch.cat([blobs(2), blobs(3)])
    hd95, asd = surface_measures(moved, fixed, LABELS, SPACINGS)
    for item, column in itertools.product(range(2), range(2)):
        masks = [volume[item, 0] == LABELS[column] for volume in (moved, fixed)]
        there, back = maurer_distances(*masks, SPACINGS[item].tolist())
        expected = max(np.percentile(there, 95), np.percentile(back, 95))
        assert hd95[item, column].item() == pytest.approx(expected, rel=1e-4)
        assert asd[item, column].item() == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-4)


def test_they_are_monais():
    moved, fixed = blobs(0), blobs(2)
    hd95, asd = surface_measures(moved, fixed, [5], SPACINGS[:1])
    masks = {"include_background": True, "spacing": SPACINGS[0].tolist()}
    both = (moved == 5, fixed == 5)
    assert hd95.item() == compute_hausdorff_distance(*both, percentile=95, **masks).item()
    assert asd.item() == pytest.approx(compute_average_surface_distance(*both, symmetric=True, **masks).item())


def test_a_voxel_that_moves_is_as_far_as_it_moved():
    fixed, moved = (torch.zeros(1, 1, *SIZE, dtype=torch.long) for _ in range(2))
    fixed[0, 0, 4, 5, 6] = moved[0, 0, 6, 5, 3] = 1
    for distance in surface_measures(moved, fixed, [1], SPACINGS[:1]):
        assert distance.item() == pytest.approx(math.hypot(2 * 1.0, 3 * 0.8), rel=1e-6)


def test_a_slab_that_moves_through_the_volume_is_as_far_as_it_moved():
    fixed = torch.zeros(1, 1, *SIZE, dtype=torch.long)
    fixed[:, :, 4] = 1  # one voxel thick, from border to border
    assert surface_measures(fixed.roll(3, 2), fixed, [1], SPACINGS[1:])[1].item() == pytest.approx(3 * 0.7, rel=1e-6)


def test_a_label_that_is_missing_in_either_scan_has_no_distance():
    labels = blobs(0)
    without = labels.where(labels != 5, 0)
    for pair in ((labels, without), (without, labels), (without, without)):
        for measure in surface_measures(*pair, [1, 5], SPACINGS[:1]):
            assert measure[0].isnan().tolist() == [False, True]


def test_background_has_no_surface():
    with pytest.raises(ValueError, match="background"):
        surface_measures(blobs(0), blobs(1), [0], SPACINGS[:1])
