"""Differences between two configs, option by option."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NO_OPTIONS = ("paths", "imports", "ckpt_path", "hydra")  # where things are, not what runs


def changes(then: Any, now: Any, name: str = "", leave_out: Sequence[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name and both values of every option that differs.

    Args:
        then, now: the configs.
        name: prefix of the dotted names.
        leave_out: keys of the first level to skip.

    >>> list(changes({"loss": {"lambda1": 1, "lambda2": 0}}, {"loss": {"lambda1": 2, "lambda2": 0}}))
    [('loss.lambda1', 1, 2)]
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*then, *now]):
            if key not in leave_out:
                yield from changes(then.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif then != now:
        yield name, then, now


def differences(then: Any, now: Any) -> Iterator[str]:
    """Yield `key: then VALUE, now VALUE` for every option that differs, except those in `NO_OPTIONS`."""
    for name, before, after in changes(then, now, leave_out=NO_OPTIONS):
        yield f"{name}: then {in_yaml(before)}, now {in_yaml(after)}"


def in_yaml(value: Any) -> str:
    """Format a value as on a command line: `null`, `true`, `0.5`."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
