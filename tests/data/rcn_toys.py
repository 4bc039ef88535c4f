"""Files as RCN's authors published theirs, made small: HDF5, and the JSON that lists them."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

SIZE = (16, 18, 16)
POINTS = np.array([[1, 2, 3], [4, 5, 6], [-1, -1, -1], [7, 8, 9], [-1, -1, -1], [10, 11, 12]], np.float32)


def volume(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)


def write(path: Path, groups: list[str], classes: list[int] | None = None, points: bool = False) -> None:
    """A file of one group a scan; a box is 255, or has the values of `classes` one below the other."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, name in enumerate(groups):
            group = file.create_group(name)
            group["volume"] = volume(number)
            segmentation = np.zeros(SIZE, np.uint8)
            for index, value in enumerate(classes or [255]):
                segmentation[2 + 2 * index : 4 + 2 * index, 3:9, 4:10] = value
            group.create_dataset("segmentation", data=segmentation, compression="gzip")
            if points:
                group["point"] = POINTS


def liver_json(tmp_path: Path) -> Path:
    """Training in the file of the key "/" and in one of its own, two test sets; the JSON lies beside the files."""
    (tmp_path / "datasets").mkdir()
    write(tmp_path / "datasets/msd.h5", [f"vessel/{k}" for k in range(3)])
    with h5py.File(tmp_path / "datasets/msd.h5", "a") as file:
        for k in range(3):
            del file[f"vessel/{k}/segmentation"]
    write(tmp_path / "datasets/bfh.h5", ["a", "b"])
    write(tmp_path / "datasets/sliver.h5", ["1", "2", "3"], points=True)
    write(tmp_path / "datasets/pigs.h5", [f"2017_{k}_{when}" for k in range(3) for when in ("after", "pre")])
    content = {
        "files": {
            key: {"type": "HDF5", "path": f"datasets/{name}.h5"}
            for key, name in {"/": "msd", "youyi": "bfh", "yanx": "sliver", "pigs": "pigs"}.items()
        },
        "image_size": list(SIZE),
        "image_type": "liver",
        "schemes": {
            "1": {"msd-train": 0.75, "bfh-train": 0.25, "off": 0.0},
            "2": {"sliver-val": 1.0},
            "lspig": {"lspig-val": 1.0},
        },
        "subsets": {
            "msd-train": [f"vessel/{k}" for k in range(3)],
            "bfh-train": ["youyi/a", "youyi/b"],
            "sliver-val": ["yanx/3", "yanx/1", "yanx/2"],
            "lspig-val": [f"pigs/2017_{k}_{when}" for k in range(3) for when in ("after", "pre")],
            "off": ["nowhere/1"],
        },
    }
    path = tmp_path / "datasets/liver.json"
    path.write_text(json.dumps(content))
    return path


def brain_json(tmp_path: Path) -> Path:
    """A JSON with an atlas and label values, in the folder above its files."""
    write(tmp_path / "data/lpba.h5", ["S01", "S02", "S03"], classes=[21, 30, 182])
    write(tmp_path / "data/adni.h5", ["1", "2"])
    content = {
        "files": {key: {"path": f"data/{key}.h5"} for key in ("lpba", "adni")},
        "image_size": list(SIZE),
        "atlas": "lpba/S01",
        "segmentation_class_value": {"182": 182, "gyrus": 21},
        "schemes": {"1": {"train": 1.0}, "2": {"val": 1.0}},
        "subsets": {"train": ["adni/1", "adni/2"], "val": ["lpba/S01", "lpba/S02", "lpba/S03"]},
    }
    path = tmp_path / "brain.json"
    path.write_text(json.dumps(content))
    return path


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
