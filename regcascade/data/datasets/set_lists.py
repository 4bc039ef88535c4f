"""Lists of public sets: what a set is, where it is from, and how `regcascade prepare` takes it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from regcascade.utils.files import read_yaml
from regcascade.utils.registry import did_you_mean

ROLES = ("train", "test", "development")
# What a list may say of the options of `regcascade prepare`, and its type.
SHARED: dict[str, type] = {"recipe": str, "set": dict}
OPTIONS: dict[str, dict[str, type]] = {
    "raw": {"images": str, "labels": str, "masks": str, "points": str, "label_names": dict, **SHARED},
    "rcn_h5": {"subset": list, "scans": str, "adjacent": bool, **SHARED},
}
TYPES = {dict: "a mapping", list: "a list", bool: "true or false", str: "text"}


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
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no list of a set: see those of data/lists.")
    _check_keys(f"{path}:", content, [field.name for field in fields(SetList)])
    for part, known in OPTIONS.items():
        options = content.get(part)
        if options is None:
            continue
        if not isinstance(options, dict):
            raise ValueError(f"{path}: '{part}' must map options to values.")
        _check_keys(f"{path}: {part}:", options, known)
        for key, value in options.items():
            if not isinstance(value, known[key]):
                raise ValueError(f"{path}: {part}.{key} must be {TYPES[known[key]]}, not {value!r}.")
    try:
        read = SetList(**content)
    except TypeError as error:
        raise ValueError(f"{path} is no whole list of a set ({str(error).partition(') ')[2] or error}).") from error
    if read.role not in ROLES:
        raise ValueError(f"{path}: role={read.role!r} is not valid. Known: {', '.join(ROLES)}.")
    return read


def _check_keys(where: str, content: Mapping[Any, Any], known: Iterable[str]) -> None:
    for key in content:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ValueError(f"{where} {str(key)!r} is not known. Known: {', '.join(known)}.{hint}")
