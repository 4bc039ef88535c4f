"""What two directions miss being inverse by: exact numbers of translations, an independent loop, and evaluations."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from regcascade.data import build_data
from regcascade.evaluation.baselines import build_method
from regcascade.evaluation.evaluate import EvaluationOptions, evaluate
from regcascade.metrics.inverse_consistency import inverse_consistency_measures

SIZE = (7, 8, 9)


def shift(*voxels):
    return torch.tensor(voxels).view(1, 3, 1, 1, 1).expand(1, 3, *SIZE).clone()


def test_translations_give_the_exact_numbers_in_mm_of_the_fixed_scan():
    there, back = shift(1.0, 0.0, -2.0), shift(2.0, 0.0, -2.0)  # 3 along x and -4 along z are left
    found = inverse_consistency_measures(there, back, torch.tensor([[2.0, 5.0, 0.5]]))
    assert found["inverse_consistency_voxels"] == pytest.approx(5)
    assert found["inverse_consistency_mm"] == pytest.approx(math.hypot(6, 2))
    assert inverse_consistency_measures(there, -there, None)["inverse_consistency_voxels"] == 0


def test_it_is_a_walk_there_and_back_from_each_voxel_that_stays_inside():
    torch.manual_seed(0)
    there, back = torch.randn(1, 3, *SIZE), torch.randn(1, 3, *SIZE)
    spacing = np.array([0.7, 1.0, 3.0])
    first, second = there[0].double().numpy(), back[0].double().numpy()
    reached = np.indices(SIZE) + first
    inside = np.all([(place >= 0) & (place <= side - 1) for place, side in zip(reached, SIZE, strict=True)], axis=0)
    left = first + np.stack([map_coordinates(part, reached, order=1, mode="nearest") for part in second])
    lengths = [np.sqrt(((left.T * scale) ** 2).sum(-1)).T[inside].mean() for scale in (1, spacing)]
    assert 0 < inside.sum() < inside.size
    found = inverse_consistency_measures(there, back, torch.from_numpy(spacing)[None].float())
    assert list(found.values()) == pytest.approx(lengths, rel=1e-5)


@pytest.mark.parametrize("there", [shift(100.0, 0.0, 0.0), shift(math.nan, 0.0, 0.0)])
def test_without_a_voxel_or_a_flow_there_is_no_error(there):
    found = inverse_consistency_measures(there, shift(0.0, 0.0, 0.0), torch.ones(1, 3))
    assert all(math.isnan(value) for value in found.values())


def test_an_evaluation_of_both_directions_has_it_beside_the_same_measures():
    data = build_data({"name": "phantom", "size": [16, 18, 20], "train": 2, "validation": 2, "validation_pairs": 1})
    one, both = (
        next(evaluate(build_method("affine"), data.test_dataloader(), data.label_names, options)).row
        for options in (EvaluationOptions(), EvaluationOptions(directions="both"))
    )
    assert set(both) - set(one) == {"inverse_consistency_voxels", "inverse_consistency_mm"}
    assert both["inverse_consistency_voxels"] > 0
    assert {k: v for k, v in one.items() if k != "seconds"} == pytest.approx(
        {k: both[k] for k in one if k != "seconds"}, nan_ok=True
    )
    with pytest.raises(ValueError, match=r"directions='?two"):
        EvaluationOptions(directions="two")
