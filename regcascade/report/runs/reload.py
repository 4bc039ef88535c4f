"""Rebuild what a run evaluated, to register its pairs again: the model or method, the scans, and how."""

from pathlib import Path
from typing import NamedTuple

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import Checkpoint, read
from regcascade.data import RegistrationData, build_data
from regcascade.evaluation.baselines import Method, build_method
from regcascade.evaluation.layout import BEST, CHECKPOINTS, CONFIG, EVALUATE, LAST, SUMMARY, read_summary, read_yaml
from regcascade.utils.files import file_hash

_NO_PAGES = "leave the pages of pairs out: --worst 0."


class Setting(NamedTuple):
    """How a cascade registered: n deformable stages, and `r` and `repeat` of `Cascade.forward`."""

    n: int
    r: int
    repeat: str


class Again(NamedTuple):
    """What registers the pairs of a run: a cascade or another method (with r=1), on whose scans, and how."""

    method: Cascade | Method
    data: RegistrationData
    setting: Setting


def again(folder: Path, given: Path | None = None) -> Again:
    """Rebuild what a run evaluated: the cascade of its checkpoint (or of a given one), or another method.

    Raises:
        ValueError: if its checkpoint, method or data set is missing, has changed, or is not told.
    """
    spec = read_summary(folder).get("method")
    if isinstance(spec, dict) and given is None:
        return Again(build_method(spec), data_of(folder, None), Setting(1, 1, "stage"))
    setting = setting_of(folder)
    checkpoint = read(find_checkpoint(folder, given))
    return Again(checkpoint.build(), data_of(folder, checkpoint), setting)


def setting_of(folder: Path) -> Setting:
    """Read how a run registered from its `summary.json`; one of no cascade is a ValueError."""
    summary = read_summary(folder)
    n, r, repeat = (summary.get(key) for key in Setting._fields)
    if not (isinstance(n, int) and isinstance(r, int) and isinstance(repeat, str)):
        raise ValueError(
            f"{folder / SUMMARY} does not say n, r and repeat, as that of a cascade does, so its pairs cannot be "
            f"registered again: {_NO_PAGES}"
        )
    return Setting(n, r, repeat)


def find_checkpoint(folder: Path, given: Path | None = None) -> Path:
    """Find the checkpoint that a run evaluated: the one given, that of its `summary.json`, or one in its own folder.

    Raises:
        ValueError: if there is none, or if the file has changed since.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(f"--checkpoint {given}: there is no such file.")
        return given
    summary = read_summary(folder)
    named, digest = summary.get("checkpoint"), summary.get("checkpoint_sha256")
    own = [folder / CHECKPOINTS / name for name in (BEST, LAST)]  # where a run folder was moved
    found = [path for path in [*([Path(named)] if named else []), *own] if path.is_file()]
    if not found:
        missing = f"its checkpoint {named} is not there" if named else f"{SUMMARY} names no checkpoint"
        raise ValueError(
            f"{folder}: {missing}, and there is no {CHECKPOINTS}/{BEST} in it. Name the file with --checkpoint, or "
            f"{_NO_PAGES}"
        )
    same = [path for path in found if digest is None or file_hash(path) == digest]
    if not same:
        raise ValueError(
            f"{found[0]} is not what {folder} evaluated, since its hash differs from that in {SUMMARY}: it was trained "
            "further, or replaced. Evaluate it again, or name it with --checkpoint to draw it nevertheless."
        )
    return same[0]


def data_of(folder: Path, checkpoint: Checkpoint | None) -> RegistrationData:
    """Build the data set a run was evaluated on: that of its `config.yaml`, or the checkpoint's own.

    A method has no checkpoint; its config may name one for its pairs.

    Raises:
        ValueError: if the set cannot be read any more.
    """
    config = read_yaml(folder / CONFIG, EVALUATE) if (folder / CONFIG).is_file() else {}
    chosen = config.get("data")
    if isinstance(chosen, dict) and chosen.get("name") != "trained":
        return build_data(chosen)
    if checkpoint is None:
        if not isinstance(config.get("checkpoint"), str):
            raise ValueError(
                f"{folder} does not say which scans its pairs are of, as it has no {CONFIG} that names them: "
                f"{_NO_PAGES}"
            )
        checkpoint = read(config["checkpoint"])
    return build_data(checkpoint.data_options(chosen if isinstance(chosen, dict) else {}))
