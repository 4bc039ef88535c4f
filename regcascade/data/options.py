"""Checks of option values that several parts of the data share; each message names the option."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from regcascade.types import Size


def check_count(option: str, value: object, minimum: int) -> int:
    """A whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{option}={value} is not valid: give a whole number, {minimum} or more.")
    return int(value)


def check_size(option: str, value: object) -> Size:
    """Three sides in voxels."""
    sides = _listed(value)
    if len(sides) != 3 or any(isinstance(s, bool) or not isinstance(s, Integral) or s < 1 for s in sides):
        raise ValueError(f"{option}={value} is not valid: give three sides in voxels, such as [128,128,128].")
    x, y, z = (int(side) for side in sides)
    return x, y, z


def check_two_numbers(option: str, value: object, meaning: str) -> tuple[float, float]:
    """Two real numbers; `meaning` tells the user which."""
    numbers = _listed(value)
    if len(numbers) != 2 or any(isinstance(n, bool) or not isinstance(n, Real) for n in numbers):
        raise ValueError(f"{option}={value} is not valid: give two numbers, [{meaning}].")
    first, second = (float(number) for number in numbers)
    return first, second


def check_percentiles(option: str, value: object) -> tuple[float, float]:
    """A lower and an upper percentile."""
    low, high = check_two_numbers(option, value, "low, high")
    if not 0 <= low < high <= 100:
        raise ValueError(f"{option}={[low, high]} is not valid: 0 <= low < high <= 100.")
    return low, high


def check_window(option: str, value: object) -> tuple[float, float]:
    """The width and the level of a window of intensities."""
    width, level = check_two_numbers(option, value, "width, level")
    if not (0 < width < math.inf and math.isfinite(level)):
        raise ValueError(f"{option}={[width, level]} is not valid: [width, level] needs a width above 0.")
    return width, level


def check_spacing(option: str, value: object) -> tuple[float, float, float]:
    """Mm per voxel along three axes."""
    steps = _listed(value)
    known = [float(step) for step in steps if isinstance(step, Real) and not isinstance(step, bool)]
    if len(steps) != 3 or len(known) != 3 or not all(0 < step < math.inf for step in known):
        raise ValueError(f"{option}={value} is not valid: give three numbers above 0, in mm, such as [1,1,1].")
    x, y, z = known
    return x, y, z


def check_number(option: str, value: object) -> float:
    """A number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{option}={value} is not valid: give a number, 0 or more.")
    return float(value)


def check_values(option: str, values: object) -> tuple[int, ...]:
    """Label values above 0."""
    listed = _listed(values)
    if not listed:
        raise ValueError(f"{option}={values} is not valid: give a list of label values, such as [1,2].")
    return tuple(check_count(option, value, 1) for value in listed)


def check_relabel(given: object) -> dict[int, int]:
    """What each label value becomes; keys may be the texts that JSON makes of them."""
    try:  # what has no items is caught below
        pairs = {int(old): check_count("relabel", new, 0) for old, new in given.items()}  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"relabel={given} is not valid: give label values and what each becomes: {{2: 1}}.") from error
    return {old: new for old, new in sorted(pairs.items()) if old != new}


def check_axes(option: str, value: str) -> str:
    """Where three array axes lead, such as `RAS`."""
    if sorted(_world_axis(letter) for letter in value) != [0, 1, 2]:
        raise ValueError(
            f"{option}={value} is not valid: give three letters, one of R or L, one of A or P and one of S or I, such "
            "as RAS."
        )
    return value


def _world_axis(letter: str) -> int:
    """Which axis of the world a letter of an orientation belongs to; -1 for none."""
    return next((axis for axis, ends in enumerate(("LR", "PA", "IS")) if letter in ends), -1)


def _listed(value: object) -> list[Any]:
    """The elements of a list or of what is like one; nothing of any other value."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
