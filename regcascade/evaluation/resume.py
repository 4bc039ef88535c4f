"""Check that an evaluation may be resumed in a folder."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regcascade.cascades import Cascade
from regcascade.data import RegistrationData
from regcascade.evaluation.baselines import Method
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.evaluation.layout import IDENTITY, PAIRS, read_json
from regcascade.utils.append_csv import parts_of
from regcascade.utils.files import claimed, file_hash, write_json
from regcascade.utils.version import __version__

LOADING = ("cache", "num_workers", "batch_size", "validate")  # data options that change no number
_SHOWN = 60  # characters of a value in a message


def identity(
    method: Cascade | Method,
    data: RegistrationData,
    data_options: Mapping[str, Any],
    checkpoint: Path | None,
    options: EvaluationOptions,
    device: str,
) -> dict[str, Any]:
    """Collect all that decides the numbers of an evaluation, as plain values.

    `data_options` are those that `data` was built from. `device` is a type of device, on which times depend.
    """
    pairs = "\n".join("\t".join(pair) for pair in data.validation_pairs)
    whole = {
        "checkpoint_sha256": None if checkpoint is None else file_hash(checkpoint),
        **method.about(options.r, options.repeat), **asdict(options), "device": device, "version": __version__,
        "pairs_sha256": hashlib.sha256(pairs.encode()).hexdigest(),
        "label_names": {str(label): name for label, name in data.label_names.items()},
        "preprocessing": data.preprocessing,
        "data": {key: value for key, value in data_options.items() if key not in LOADING},
    }  # fmt: skip
    return json.loads(json.dumps(whole, default=str))


def can_resume(folder: Path, whose: Mapping[str, Any]) -> bool:
    """Tell whether a folder has rows of the evaluation with this `identity`; if it has no rows, mark it with that.

    Raises:
        ValueError: if the folder has rows of another evaluation, or of something else.
    """
    pairs, record = folder / PAIRS, folder / IDENTITY
    if not any(path.is_file() and path.stat().st_size for path in (pairs, *parts_of(pairs))):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, whose)
        return False
    if not record.is_file():
        raise ValueError(
            f"{folder} has a {PAIRS} and no {IDENTITY}, so its rows may be of anything (a training run, an older "
            "version). Give another folder as paths.run."
        )
    before = read_json(record, "Give another folder as paths.run.")
    differ = [key for key in {**before, **whose} if before.get(key) != whose.get(key)]
    if differ:
        told = ", ".join(f"{key} was {_short(before.get(key))} and is {_short(whose.get(key))}" for key in differ)
        raise ValueError(
            f"{folder} holds another evaluation: {told}. Give another folder as "
            "paths.run, or the same checkpoint and options."
        )
    return True


@contextmanager
def alone_in(folders: Iterable[Path]) -> Iterator[None]:
    """Keep other evaluations out of folders, made if missing; raise ValueError if one runs in any of them."""
    with ExitStack() as stack:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(claimed(folder / PAIRS)):
                raise ValueError(
                    f"Another evaluation is under way in {folder}: wait for it, or give another folder as paths.run."
                )
        yield


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
