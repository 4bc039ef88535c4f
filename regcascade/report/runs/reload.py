"""What a run evaluated, to register its pairs again: the model or method, the scans, and how."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import Checkpoint, read
from regcascade.data import RegistrationData, build_data
from regcascade.evaluation.baselines import Method, build_method
from regcascade.utils.files import file_hash

SUMMARY, CONFIG = "summary.json", "config.yaml"
BEST, LAST = Path("checkpoints/best.ckpt"), Path("checkpoints/last.ckpt")


class Setting(NamedTuple):
    """How a run registered.

    Attributes:
        n: deformable stages.
        r: how often each network was applied.
        repeat: in which order, see `Cascade.forward`.
    """

    n: int
    r: int
    repeat: str


class Again(NamedTuple):
    """What registers the pairs of a run.

    Attributes:
        method: the cascade, or another method.
        data: whose scans they are.
        setting: of a cascade; of another method r is 1.
    """

    method: Cascade | Method
    data: RegistrationData
    setting: Setting


def again(folder: Path, given: Path | None = None) -> Again:
    """What a run evaluated: the cascade of its checkpoint or, with its options then, another method.

    Args:
        folder: of the run.
        given: a checkpoint instead of the run's own.

    Raises:
        ValueError: if its checkpoint, method or data set is missing or has changed, or it does not say.
    """
    spec = _summary(folder).get("method")
    if isinstance(spec, dict) and given is None:
        return Again(build_method(spec), data_of(folder, None), Setting(1, 1, "stage"))
    setting = setting_of(folder)
    checkpoint = read(find_checkpoint(folder, given))
    return Again(checkpoint.build(), data_of(folder, checkpoint), setting)


def setting_of(folder: Path) -> Setting:
    """How a run registered, from its `summary.json`.

    Raises:
        ValueError: if the file is missing or damaged, or does not say: it is no cascade's.
    """
    summary = _summary(folder)
    n, r, repeat = (summary.get(key) for key in Setting._fields)
    if not (isinstance(n, int) and isinstance(r, int) and isinstance(repeat, str)):
        raise ValueError(
            f"{folder / SUMMARY} does not say n, r and repeat, as that of a cascade does, so its pairs cannot be "
            "registered again. Leave the pages of pairs out: --worst 0."
        )
    return Setting(n, r, repeat)


def find_checkpoint(folder: Path, given: Path | None = None) -> Path:
    """The checkpoint that a run evaluated: the one given, that of its `summary.json`, or the best in its own folder.

    The file of a summary is looked for where it was, and in the run folder in case that was moved.

    Raises:
        ValueError: if there is none, or if the file has changed since.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(f"--checkpoint {given}: there is no such file.")
        return given
    summary = _summary(folder)
    named = summary.get("checkpoint")
    places = [Path(named)] if isinstance(named, str) else []
    places += [folder / BEST, folder / LAST]
    found = [path for path in places if path.is_file()]
    if not found:
        missing = f"its checkpoint {named} is not there" if named else f"{SUMMARY} names no checkpoint"
        raise ValueError(
            f"{folder}: {missing}, and there is no {BEST} in it. Name the file with --checkpoint, or leave the pages "
            "of pairs out: --worst 0."
        )
    digest = summary.get("checkpoint_sha256")
    same = [path for path in found if digest is None or file_hash(path) == digest]
    if not same:
        raise ValueError(
            f"{found[0]} is not what {folder} evaluated, since its hash differs from that in {SUMMARY}: it was trained "
            "further, or replaced. Evaluate it again, or name it with --checkpoint to draw it nevertheless."
        )
    return same[0]


def data_of(folder: Path, checkpoint: Checkpoint | None) -> RegistrationData:
    """The data set a run was evaluated on: that of its `config.yaml`, or where it has none the checkpoint's own.

    Args:
        folder: the run.
        checkpoint: of the run; None for a method without one, whose config may name that whose pairs it was given.

    Raises:
        ValueError: if the set cannot be read any more.
    """
    file = folder / CONFIG
    config: Any = {}
    if file.is_file():
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read as YAML: {str(error).splitlines()[0]}.") from error
    config = config if isinstance(config, dict) else {}
    chosen = config.get("data")
    if isinstance(chosen, dict) and chosen.get("name") != "trained":
        return build_data(chosen)
    if checkpoint is None:
        named = config.get("checkpoint")
        if not isinstance(named, str):
            raise ValueError(
                f"{folder} does not say which scans its pairs are of, as it has no {CONFIG} that names them: leave the "
                "pages of pairs out: --worst 0."
            )
        checkpoint = read(named)
    return build_data(checkpoint.data_options(chosen if isinstance(chosen, dict) else {}))


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Evaluate again.") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{path} is no summary of an evaluation. Evaluate again.")
    return summary
