"""A phantom pair written at two different geometries, and a small untrained model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from grids import LPS, SIZE, oblique, resampled, write_scan
from matplotlib.figure import Figure

from regcascade.cascades import build
from regcascade.cascades.checkpoint import describe, write
from regcascade.data.datasets.phantom import Phantom
from regcascade.data.preprocessing.standard import Preprocessing


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model whose scans are stretched to a small size, in percentiles."""
    path = tmp_path_factory.mktemp("model") / "small.ckpt"
    torch.manual_seed(0)
    cascade = build({"name": "pyramid", "width": 4}, "cr", 2)
    made = Preprocessing(size=SIZE, fit="resample", percentiles=(0.0, 100.0)).as_dict()
    made |= {"orientation": "LPS", "spacing": [2.0, 2.0, 2.0]}
    loss = {"smoothness": 0.1, "labels": 1.0, "alpha": 0.0}
    description = describe({"name": "pyramid", "width": 4}, "cr", 2, "none", SIZE, {1: "liver"}, made, {}, loss)
    write(path, cascade, description)
    return path


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms as `fixed*` and `moving*`: image, labels, landmarks; the second on a turned and coarser grid."""
    folder = tmp_path_factory.mktemp("scans")
    cases = Phantom(2, (32, 28, 30), spacing_mm=(2.0, 2.0, 2.0))
    for role, case in zip(("fixed", "moving"), cases, strict=True):
        image = (case.image[0].numpy() * 290 - 25).astype(np.float32)
        labels, points = case.labels[0].numpy().astype(np.uint8), case.points.numpy().astype(float)
        affine = LPS @ oblique(image.shape, (2.0, 2.0, 2.0), 0.0)
        if role == "moving":
            other = (40, 33, 26)
            onto = LPS @ oblique(other, (1.9, 2.1, 2.6), 14.0)
            image, labels = (
                resampled(image, affine, onto, other),
                resampled(labels, affine, onto, other, order=0),
            )
            world = points @ affine[:3, :3].T + affine[:3, 3]
            points = (world - onto[:3, 3]) @ np.linalg.inv(onto[:3, :3]).T
            affine = onto
        write_scan(folder / f"{role}.nii.gz", image.round().astype(np.int16), affine)
        write_scan(folder / f"{role}_labels.nii.gz", labels, affine)
        lines = [",".join(f"{value:.4f}" for value in point) for point in points]
        (folder / f"{role}_points.csv").write_text("\n".join(["x,y,z", *lines]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page in place of the drawn registration, which takes most of the time of a small pair."""
    monkeypatch.setattr("regcascade.inference.outputs.registration_figure", lambda *_: Figure(figsize=(1, 1)))
