"""The models that come with regcascade: small, plain, described, and working out of the box."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from regcascade.cascades.checkpoint import PRETRAINED, CheckpointError, pretrained_names, read
from regcascade.cli.main import main

SHAPE = (35, 51, 37)
SPACING = (1.0, 0.9, 1.1)


@pytest.mark.parametrize("name", pretrained_names())
def test_it_is_small_and_says_what_it_is(name: str) -> None:
    checkpoint = read(name)
    assert checkpoint.path.stat().st_size < 5e6
    assert checkpoint.description["loss"] and checkpoint.description["preprocessing"] and checkpoint.step > 0
    assert sum(weight.numel() for weight in checkpoint.build().state_dict().values()) > 0
    assert str(Path.home()) not in json.dumps(checkpoint.description)
    assert f"[{name}.md]({name}.md)" in (PRETRAINED / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pretrained_names())
def test_its_card_says_data_licence_measures_use_and_limits(name: str) -> None:
    card = (PRETRAINED / f"{name}.md").read_text(encoding="utf-8")
    parts = ("Trained on", "Licences", "Measures", "Intended use", "Limits")
    assert [part for part in parts if f"**{part}.**" not in card] == []
    assert f"`{name}`" in card and "python train.py" in card


def test_there_is_one() -> None:
    assert "hippocampus" in pretrained_names()


def test_a_name_that_is_none_lists_those_there_are() -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint hipocampus.*hippocampus"):
        read("hipocampus")


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hippocampus").write_text("no checkpoint", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read("hippocampus")


def test_two_files_are_registered_by_its_name(tmp_path: Path) -> None:
    for name, sides in (("fixed", (8.0, 17.0, 9.0)), ("moving", (11.0, 14.0, 10.5))):
        sitk.WriteImage(_blob(sides, np.uint8), tmp_path / f"{name}.nii.gz")
        sitk.WriteImage(_blob(sides, np.uint8) > 100, tmp_path / f"{name}_labels.nii.gz")
    labels = [f"--{role}-labels={tmp_path / role}_labels.nii.gz" for role in ("fixed", "moving")]
    files = [str(tmp_path / f"{role}.nii.gz") for role in ("fixed", "moving")]
    main(["register", *files, *labels, "--checkpoint", "hippocampus", "--out", str(tmp_path / "result")])
    report = json.loads((tmp_path / "result" / "report.json").read_text(encoding="utf-8"))
    assert report["cc_after"] > report["cc_initial"] + 0.02
    assert report["dice_after"]["mean"] > report["dice_initial"]["mean"] + 0.03


def _blob(sides_mm: tuple[float, float, float], kind: type) -> sitk.Image:
    """An ellipsoid with a soft rim on a textured ground, its long axis along y as a hippocampus' is."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) * np.array(SPACING)
    middle = (np.array(SHAPE) - 1) / 2 * np.array(SPACING)
    radius = np.sqrt((((places - middle) / np.array(sides_mm)) ** 2).sum(-1))
    values = 40 + 20 * np.sin(places / 6).sum(-1) / 3 + 140 / (1 + np.exp(8 * (radius - 1)))
    image = sitk.GetImageFromArray(values.astype(kind).T)
    image.SetSpacing(SPACING)
    return image
