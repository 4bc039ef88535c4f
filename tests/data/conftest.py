"""A small Decathlon folder, written anew for each test that asks for one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_scans import scan_arrays, write_nifti


@pytest.fixture
def decathlon(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of `labelled` scans and, in the list `test`, `unlabelled` ones; returns its path."""

    def write(labelled: int = 5, unlabelled: int = 0) -> Path:
        root = tmp_path / "Task99_Toy"
        training, test = [], []
        for index in range(labelled + unlabelled):
            image, labels = scan_arrays(index)
            write_nifti(root / f"imagesTr/toy_{index:02d}.nii.gz", image)
            entry = {"image": f"./imagesTr/toy_{index:02d}.nii.gz"}
            if index < labelled:
                write_nifti(root / f"labelsTr/toy_{index:02d}.nii.gz", labels)
                entry["label"] = f"./labelsTr/toy_{index:02d}.nii.gz"
                training.append(entry)
            else:
                test.append(entry["image"])
        manifest = {
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "liver", "2": "tumour"},
            "training": training[::-1],
            "test": test,
        }
        (root / "dataset.json").write_text(json.dumps(manifest))
        return root

    return write
