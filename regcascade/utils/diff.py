"""Differences between two configs, option by option."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NO_OPTIONS = ("paths", "imports", "ckpt_path", "hydra")  # say where things are


def changes(then: Any, now: Any, name: str = "", leave_out: Sequence[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    """The dotted name of every option that is not the same, and its two values.

    Args:
        then, now: the configs.
        name: of both, to put before.
        leave_out: keys of the first level to pass over.

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
    """`key: then VALUE, now VALUE` of every option that is not the same, except those that say where things are."""
    for name, before, after in changes(then, now, leave_out=NO_OPTIONS):
        yield f"{name}: then {in_yaml(before)}, now {in_yaml(after)}"


def in_yaml(value: Any) -> str:
    """A value as a command line would give it: `null`, `true`, `0.5`."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
