"""Differences between two configs, option by option."""

from collections.abc import Iterator, Mapping
from typing import Any

NO_OPTIONS = ("paths", "imports", "ckpt_path", "hydra")


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """`key: then VALUE, now VALUE` of every option that is not the same, but for those that say where things are."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*then, *now]):
            if name or key not in NO_OPTIONS:
                yield from differences(then.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif then != now:
        yield f"{name}: then {_shown(then)}, now {_shown(now)}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
