"""Say how a run differs from the experiment that its config names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from regcascade.report.paper.experiments import LABELS, Row
from regcascade.report.paper.runs import PAPER_SCALE, Evaluation, Training
from regcascade.utils.config_diff import changes, in_yaml

Compose = Callable[[str, Sequence[str]], Mapping[str, Any]]
_GROUPS = ("n", "train_r", "model", "cascade", "affine", "loss", "optimizer")
_OF_AFFINE = ("checkpoint",)  # says where the weights are, not what they are
_LOADING = ("root", "pairs", "num_workers", "cache", "validate", "seed")  # of the data: where it is, how it is read
_OF_TRAINER = (
    "max_steps", "max_epochs", "max_time", "gradient_clip_val", "accumulate_grad_batches", "devices", "num_nodes",
    "precision", "limit_train_batches", "overfit_batches", "fast_dev_run",
)  # fmt: skip
_NEARLY = 0.99  # of the steps; the last of them may not be logged


def trained_otherwise(training: Training, compose: Compose) -> Iterator[str]:
    """Say how the config of a training differs from its experiment's, and whether it was stopped early."""
    config = training.config
    scale = str(config["reproduces"].get("scale") or PAPER_SCALE)
    if scale != PAPER_SCALE:
        size = config["data"].get("size")
        volume = f" {'x'.join(map(str, size))}" if size else ""
        yield f"scale={scale} ({config['data'].get('name')}{volume})"
    meant = compose("train", [f"experiment={training.experiment}", f"scale={scale}"])
    for group in _GROUPS:
        yield from changed_options(group, config.get(group, meant.get(group)), meant.get(group), leave_out=_OF_AFFINE)
    yield from changed_options("data", config["data"], meant["data"], leave_out=_LOADING)
    ours, theirs = ({key: of["trainer"].get(key) for key in _OF_TRAINER} for of in (config, meant))
    yield from changed_options("trainer", ours, theirs)
    if init := config.get("init"):
        yield f"init={Path(str(init)).name}"
    theirs = meant.get("callbacks") or {}
    for name, options in (config.get("callbacks") or {}).items():  # those that were left out are not told
        if name in theirs:
            yield from changed_options(f"callbacks.{name}", options, theirs[name])
        elif isinstance(options, Mapping):
            added = [f"callbacks.{name}.{key}={value}" for key, value in options.items() if key != "_target_"]
            yield from added or [f"callbacks.{name}"]
    trained, wanted_sets = (_sets(of["data"].get("root")) for of in (config, meant))
    if wanted_sets and trained != wanted_sets:
        yield f"trained on {', '.join(trained) or config['data'].get('root')}"
    wanted = config["trainer"].get("max_steps")
    try:
        done = int(pd.read_csv(training.folder / "metrics.csv", usecols=["step"])["step"].max()) + 1
    except (OSError, ValueError):  # no steps are known
        return
    if isinstance(wanted, int) and done < _NEARLY * wanted:
        yield f"{done:,} of {wanted:,} steps"


def evaluated_otherwise(evaluation: Evaluation, row: Row) -> Iterator[str]:
    """Say how an evaluation differs from the paper's."""
    labels = evaluation.summary.get("label_interpolation", "nearest")
    if labels != LABELS[row.paper]:
        yield f"labels={labels}"
    if evaluation.summary.get("checkpoint") and not evaluation.is_of_last:
        yield Path(str(evaluation.summary["checkpoint"])).name
    if failures := evaluation.summary.get("failures"):
        yield f"{failures} pairs failed"


def changed_options(name: str, ours: Any, theirs: Any, leave_out: Sequence[str] = ()) -> Iterator[str]:
    """Write `name.key=value` of every option that differs, except those that `ours`, being older, does not have."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        theirs = {key: value for key, value in theirs.items() if key in ours}
    for key, _, value in changes(theirs, ours, name, leave_out):
        yield f"{key}={in_yaml(value)}"


def _sets(root: Any) -> list[str]:
    return sorted(name for name, folder in root.items() if folder) if isinstance(root, Mapping) else []
