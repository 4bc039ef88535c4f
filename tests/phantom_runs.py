"""Run folders as evaluations leave them: of phantoms, with measures that are made up."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from regcascade.cascades import build
from regcascade.cascades.checkpoint import CHECKPOINT_KEY, describe
from regcascade.cli.main import main
from regcascade.data import build_data
from regcascade.utils.files import file_hash

DATA = {"name": "phantom", "size": [16, 16, 16], "train": 2, "validation": 3, "validation_pairs": None}
MODEL = {"name": "voxelmorph", "width_multiplier": 1}


def write_checkpoint(path: Path, n: int = 1) -> Path:
    """A checkpoint of an untrained network for phantoms of 16 voxels a side."""
    data = build_data(DATA)
    cascade = build(MODEL, "cr", n, "none", data.size)
    description = describe(MODEL, "cr", n, "none", data.size, data.label_names, data.preprocessing, DATA)
    weights = {f"cascade.{key}": value for key, value in cascade.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights, "global_step": 1, CHECKPOINT_KEY: description}, path)
    return path


def write_run(folder: Path, n: int = 1, r: int = 1, gain: float = 0.1, checkpoint: bool = True) -> Path:
    """A run folder as an evaluation of all six pairs of three scans leaves it."""
    file = write_checkpoint(folder / "checkpoints/best.ckpt", n) if checkpoint else None
    folder.mkdir(parents=True, exist_ok=True)
    pairs = build_data(DATA).validation_pairs
    rows = [
        {"fixed": fixed, "moving": moving, "dice_liver": 0.1 * k + gain, "dice_mean": 0.1 * k + gain, "cc": 0.5}
        | {"dice_liver_before": 0.1 * k, "dice_mean_before": 0.1 * k}
        for k, (fixed, moving) in enumerate(pairs)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(folder / "pairs.csv", index=False)
    measures = {name: {"mean": float(mean), "std": None} for name, mean in table.mean(numeric_only=True).items()}
    summary = {"pairs": len(table), "n": n, "r": r, "repeat": "stage", "parameters": 1, "paper_size_mib": 1.0}
    summary |= {"checkpoint": file and str(file), "checkpoint_sha256": file and file_hash(file), "measures": measures}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_stages(folder: Path, n: int, r: int = 1, labels: bool = True) -> pd.DataFrame:
    """The table of stages beside a run, as an evaluation with stages=true writes it; Dice grows by 0.1 a step."""
    steps = [("before", 0), *((str(k + 1), i + 1) for k in range(n) for i in range(r))]
    rows = [
        {"fixed": fixed, "moving": moving, "step": step, "stage": stage, "repeat": repeat}
        | {"dice_mean": 0.1 * step + 0.05 * number if labels else None, "cc": 0.5 + 0.05 * step}
        | {"folding_percent": 0.02 * step * number, "seconds": 0.1 * step}
        for number, (fixed, moving) in enumerate(build_data(DATA).validation_pairs)
        for step, (stage, repeat) in enumerate(steps)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(folder / "stages.csv", index=False)
    return table


def failed(arguments: list[str], capsys) -> str:
    """What a command that must fail says; it does so in one line, with status 1."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said
