"""Which scans train and which validate: by fraction, by number, or by name."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from regcascade.data.pairs import NamePair
from regcascade.utils.files import parse_json
from regcascade.utils.registry import did_you_mean

Part = float | int | str | Sequence[str] | None


class Split(NamedTuple):
    """Which scans of a set train and which validate, by name, and how they are paired.

    Attributes:
        train: the scans that train; fewer than two are valid where nothing is trained.
        validation: the scans that validate.
        pairs: the pairs (fixed, moving) to validate on; None for any two of `validation`.
        train_pairs: the pairs to train on, all of `train`; None for any two of a pool.
        pools: the names of each pool and how often training draws from it; None for one pool of all of `train`.
        atlas: the scan that is fixed in every pair of training.
    """

    train: list[str]
    validation: list[str]
    pairs: Sequence[NamePair] | None = None
    train_pairs: Sequence[NamePair] | None = None
    pools: Sequence[tuple[Sequence[str], float]] | None = None
    atlas: str | None = None


def split_names(names: Sequence[str], labelled: Collection[str], validation: Part, train: Part, seed: int) -> Split:
    """Divide the scans of a set.

    Each part is a fraction (0.15), a count (30), a list of names, or a file of names: text with one a line,
    or JSON with a list, or with a list under the key `train` or `validation`. Parts are drawn in the order of a hash of
    (seed, name): the same on every machine, and a new scan moves no other, save one at the boundary. Validation is
    drawn from the labelled scans if there are any, and a fraction is one of those; training takes what it leaves.

    Args:
        names: of all scans.
        labelled: of those with labels.
        validation: the part that validates.
        train: the part that trains; None for all the rest, 0 where nothing is trained.
        seed: of the draw.

    Raises:
        ValueError: for a name that is not in the set or in both parts, or a part that is not valid.
    """

    def shuffled(scans: Collection[str]) -> list[str]:
        return sorted(scans, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())

    listed_validation = _listed("data.validation", validation, names)
    listed_train = _listed("data.train", train, names)
    if listed_validation is None:
        free = set(names) - set(listed_train or ())
        pool = free & set(labelled) or free
        whole = len(set(names) & set(labelled)) or len(names)
        count = _count("data.validation", validation, whole, len(pool))
        listed_validation = shuffled(pool)[:count]
    both = set(listed_validation) & set(listed_train or ())
    if both:
        raise ValueError(f"data.train and data.validation both list {sorted(both)[0]!r}; a scan belongs to one part.")
    if listed_train is None:
        rest = set(names) - set(listed_validation)
        count = len(rest) if train is None else _count("data.train", train, len(names), len(rest))
        listed_train = shuffled(rest)[:count]
    return Split(sorted(listed_train), sorted(listed_validation))


def _count(option: str, part: object, whole: int, available: int) -> int:
    if isinstance(part, float) and 0 <= part <= 1:
        count = round(part * whole)
    elif isinstance(part, int) and not isinstance(part, bool) and part >= 0:
        count = part
    else:
        raise ValueError(
            f"{option}={part} is not valid: give a fraction in 0..1 (0.15), a count (30), names or a file of names."
        )
    if count > available:
        raise ValueError(f"{option}={part} asks for {count} scans, but only {available} are left for it.")
    return count


def _listed(option: str, part: Part, names: Sequence[str]) -> list[str] | None:
    """Read the names a part lists; None if it is to be drawn."""
    if part is None or isinstance(part, int | float):
        return None
    listed = _read_names(option, Path(part)) if isinstance(part, str) else list(part)
    known = set(names)
    for name, count in Counter(listed).items():
        if name not in known:
            raise ValueError(f"{option}: there is no scan {name!r} in the data set.{did_you_mean(str(name), names)}")
        if count > 1:
            raise ValueError(f"{option} lists {name!r} more than once.")
    return listed


def _read_names(option: str, path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(
            f"{option}={path}: there is no such file. Give a fraction (0.15), a count (30), names "
            "([case_1,case_2]), or a text or JSON file of names."
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{option}: {path} cannot be read ({error}).") from error
    key = option.removeprefix("data.")
    listed = content.get(key) if isinstance(content, dict) else content
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{option}: {path} must hold a list of names, or one under the key {key!r}.")
    return listed
