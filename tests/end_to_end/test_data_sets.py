"""Training and evaluating on files as they are, phantoms written as each data set expects them."""

import csv
import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from short_runs import ON_ONE_CORE, steps

from regcascade.data.case import Case
from regcascade.data.datasets.phantom import Phantom

SIZE = (16, 18, 16)
TINY = ["data.validation_pairs=2", "data.pairs_per_epoch=2", "data.num_workers=0", *ON_ONE_CORE, *steps(1), "n=1"]


def write(case: Case, folder: Path, name: str) -> None:
    """A phantom's image, labels and landmarks as `name`, with `t1`, `seg` and `points` in it."""
    affine = np.diag([*case.spacing, 1.0])
    for kind, volume in {"t1": 1000 * case.image, "seg": case.labels.short()}.items():
        path = folder / name.format(kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume[0].numpy(), affine), path)
    rows = [["x", "y", "z"], *case.points.tolist()]
    with (folder / name.format("points").replace(".nii.gz", ".csv")).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def as_pairs(cases: Phantom, folder: Path) -> list[str]:
    for number, case in enumerate(cases):
        write(case, folder, f"p{number}_{{}}.nii.gz")
    kinds = {"": "t1.nii.gz", "_labels": "seg.nii.gz", "_points": "points.csv"}
    for table, pairs in {"train": [(0, 1), (1, 2)], "validation": [(3, 2), (2, 3)]}.items():
        rows = [
            {f"{role}{key}": f"p{number}_{file}" for role, number in zip(("fixed", "moving"), pair, strict=True)
             for key, file in kinds.items()}
            for pair in pairs
        ]  # fmt: skip
        pd.DataFrame(rows).to_csv(folder / f"{table}.csv", index=False)
    return [f"data.train={folder}/train.csv", f"data.validation={folder}/validation.csv", "data.size=[16,18,16]"]


def as_subjects(cases: Phantom, folder: Path) -> list[str]:
    for number, case in enumerate(cases):
        write(case, folder, f"OAS_{number}/{{}}.nii.gz")
    globs = [f"data.{key}=*/{file}" for key, file in {"images": "t1.nii.gz", "labels": "seg.nii.gz"}.items()]
    return [f"data.root={folder}", *globs, "data.points=*/points.csv", "data.validation=2", "data.size=[16,18,16]"]


def as_learn2reg(cases: Phantom, folder: Path) -> list[str]:
    kinds = {"image": "t1.nii.gz", "label": "seg.nii.gz", "keypoints": "points.csv"}
    for number, case in enumerate(cases):
        write(case, folder, f"Toy_{number:04}_0000_{{}}.nii.gz")
    files = [{key: f"./Toy_{number:04}_0000_{kind}" for key, kind in kinds.items()} for number in range(len(cases))]
    pairs = [{"fixed": files[a]["image"], "moving": files[b]["image"]} for a, b in ((2, 3), (3, 2))]
    manifest = {"training": files, "pairings": "unpaired", "registration_val": pairs}
    (folder / "Toy_dataset.json").write_text(json.dumps(manifest))
    return [f"data.root={folder}", "data.size=[16,18,16]"]


def as_rcn_h5(cases: Phantom, folder: Path) -> list[str]:
    with h5py.File(folder / "scans.h5", "w") as file:
        for number, case in enumerate(cases):
            group = file.create_group(str(number))
            group["volume"] = (255 * case.image[0]).numpy().astype(np.uint8)
            group["segmentation"] = (255 * (case.labels[0] == 1)).numpy().astype(np.uint8)
            group["point"] = np.where(np.isnan(case.points), -1, case.points)
    content = {
        "files": {"toy": {"path": "scans.h5"}},
        "image_size": list(SIZE),
        "image_type": "liver",
        "schemes": {"1": {"train": 1.0}, "2": {"val": 1.0}},
        "subsets": {"train": ["toy/0", "toy/1"], "val": ["toy/2", "toy/3"]},
    }
    (folder / "toy.json").write_text(json.dumps(content))
    return [f"data.root={folder / 'toy.json'}"]


@pytest.mark.parametrize("name", ["pairs", "subjects", "learn2reg", "rcn_h5"])
def test_a_step_of_training_and_an_evaluation(name, tmp_path, in_process):
    make = {"pairs": as_pairs, "subjects": as_subjects, "learn2reg": as_learn2reg, "rcn_h5": as_rcn_h5}[name]
    (tmp_path / "scans").mkdir()
    options = [f"data={name}", *make(Phantom(4, SIZE, 0), tmp_path / "scans")]
    status, output = in_process("train", [*options, *TINY], tmp_path)
    assert status == 0, output
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/*/config.yaml"))
    for number, chosen in enumerate((["data.validation_pairs=2"], [*options, "data.num_workers=0"])):
        folder = tmp_path / f"evaluation_{number}"
        folder.mkdir()
        status, output = in_process("evaluate", [f"checkpoint={run / 'checkpoints/last.ckpt'}", *chosen], folder)
        assert status == 0, output
        (rows,) = folder.glob("evaluations/*/*/pairs.csv")
        table = pd.read_csv(rows)
        assert len(table) == 2
        measures = ["dice_mean", "cc", "landmark_distance_voxels", "hd95_mm", "dice_mean_before"]
        assert table[measures].notna().all(axis=None)
        assert set(table["fixed"]) == set(table["moving"])
