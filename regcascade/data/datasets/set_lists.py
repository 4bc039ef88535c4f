"""Lists of public sets: what a set is, where it is from, and how `regcascade prepare` takes it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from regcascade.utils.registry import did_you_mean

ROLES = ("train", "test", "development")
# What a list may say of the options of `regcascade prepare`.
RAW = ("images", "labels", "masks", "points", "label_names", "recipe", "set")
H5 = ("subset", "scans", "adjacent", "recipe", "set")


@dataclass(frozen=True, kw_only=True)
class SetList:
    """What is known of a public set, and the options that prepare it.

    Attributes:
        name: of the set, as `data=liver` and `data=brain` call it.
        title: what it is.
        role: in the papers: `train` or `test`; `development` if they do not use it.
        source: where it is obtained.
        terms: its licence or terms of use.
        commands: that prepare it, one for each form it comes in.
        cases: how many scans the papers use, or None.
        pairs: how many pairs the papers test, or None.
        raw: options for the raw scans, as those of the command line.
        rcn_h5: options for RCN's HDF5 files.
        notes: anything else a user should know.
    """

    name: str
    title: str
    role: str
    source: str
    terms: str
    commands: list[str]
    cases: int | None = None
    pairs: int | None = None
    raw: Mapping[str, Any] | None = None
    rcn_h5: Mapping[str, Any] | None = None
    notes: str = ""


def read_set_list(path: Path) -> SetList:
    """Read a list.

    Raises:
        ValueError: naming the file, if it is missing, no YAML, or lacks or has something it should not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as the list of a set ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no list of a set: see those of data/lists.")
    _check_keys(path, "", content, [field.name for field in fields(SetList)])
    for key, known in (("raw", RAW), ("rcn_h5", H5)):
        if content.get(key) is not None:
            if not isinstance(content[key], dict):
                raise ValueError(f"{path}: '{key}' must map options to values.")
            _check_keys(path, f"{key}: ", content[key], known)
            _check_values(path, key, content[key])
    try:
        read = SetList(**content)
    except TypeError as error:
        raise ValueError(f"{path} is no whole list of a set ({str(error).partition(') ')[2] or error}).") from error
    if read.role not in ROLES:
        raise ValueError(f"{path}: role={read.role!r} is not valid. Known: {', '.join(ROLES)}.")
    return read


def _check_keys(path: Path, where: str, content: Mapping[Any, Any], known: list[str] | tuple[str, ...]) -> None:
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise ValueError(f"{path}: {where}{unknown[0]!r} is not known. Known: {', '.join(known)}.{hint}")


def _check_values(path: Path, part: str, options: Mapping[str, Any]) -> None:
    """Types of what the options hold."""
    kinds = {"label_names": dict, "set": dict, "subset": list, "adjacent": bool}
    for key, value in options.items():
        kind = kinds.get(key, str)
        if not isinstance(value, kind):
            wanted = {dict: "a mapping", list: "a list", bool: "true or false", str: "text"}[kind]
            raise ValueError(f"{path}: {part}.{key} must be {wanted}, not {value!r}.")
