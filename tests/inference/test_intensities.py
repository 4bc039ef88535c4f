"""Scans whose intensities are not those a model was trained on are told."""

import pytest
import torch

from regcascade.inference.model import intensity_warning


@pytest.fixture
def usual() -> torch.Tensor:
    """Half black, as around a brain, the rest all over 0..1."""
    image = torch.rand(1, 9, 12, 17, generator=torch.Generator().manual_seed(1))
    image[:, :, :6] = 0
    return image


def test_a_scan_as_in_training_needs_no_warning(usual: torch.Tensor) -> None:
    assert intensity_warning(usual, "scan") is None


@pytest.mark.parametrize(
    "factor, said", [(1000.0, "scan lies above"), (0.05, "scan spans 4."), (0.0, "scan spans 0.0 %")]
)
def test_other_units_are_told(usual: torch.Tensor, factor: float, said: str) -> None:
    warning = intensity_warning((factor * usual).clamp(0, 1), "scan")
    assert warning is not None and warning.startswith(said) and "other units" in warning


def test_bright_spots_are_no_other_units(usual: torch.Tensor) -> None:
    assert intensity_warning((1.5 * usual).clamp(0, 1), "scan") is None
