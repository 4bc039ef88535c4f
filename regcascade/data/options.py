"""Checks of option values that several parts of the data share; each message names the option."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from regcascade.types import Size
from regcascade.utils.memory import GIB, available_memory

VOLUMES = 10  # float32, that any registration holds: two images, what is moved, a flow, its sum, sampling places


def check_count(option: str, value: object, minimum: int) -> int:
    """Check a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{option}={value} is not valid: give a whole number, {minimum} or more.")
    return int(value)


def check_number(option: str, value: object, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """Check a finite number from `minimum` to `maximum`."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not minimum <= number <= maximum or number == math.inf:
        valid = f"{minimum:g} or more" if maximum == math.inf else f"{minimum:g} to {maximum:g}"
        raise ValueError(f"{option}={value} is not valid: give a number, {valid}.")
    return number


def check_size(option: str, value: object) -> Size:
    """Check three sides in voxels, and that there is memory for the volumes of the smallest registration."""
    sides = _numbers(value, 3, Integral)
    if not sides or min(sides) < 1:
        raise ValueError(f"{option}={value} is not valid: give three sides in voxels, such as [128,128,128].")
    x, y, z = (int(side) for side in sides)
    if (needed := VOLUMES * 4 * x * y * z) > (free := available_memory()):
        raise ValueError(
            f"{option}={value}: to register volumes of that size takes {needed / GIB:.1f} GiB or more, and "
            f"{free / GIB:.1f} GiB are free. Choose a smaller one."
        )
    return x, y, z


def check_percentiles(option: str, value: object) -> tuple[float, float]:
    """Check a lower and an upper percentile."""
    low, high = _two(option, value, "low, high")
    if not 0 <= low < high <= 100:
        raise ValueError(f"{option}={[low, high]} is not valid: 0 <= low < high <= 100.")
    return low, high


def check_window(option: str, value: object) -> tuple[float, float]:
    """Check the width and the level of a window of intensities."""
    width, level = _two(option, value, "width, level")
    if not (0 < width < math.inf and math.isfinite(level)):
        raise ValueError(f"{option}={[width, level]} is not valid: [width, level] needs a width above 0.")
    return width, level


def check_spacing(option: str, value: object) -> tuple[float, float, float]:
    """Check mm per voxel along three axes."""
    steps = _numbers(value, 3)
    if not steps or not all(0 < step < math.inf for step in steps):
        raise ValueError(f"{option}={value} is not valid: give three numbers above 0, in mm, such as [1,1,1].")
    x, y, z = (float(step) for step in steps)
    return x, y, z


def check_values(option: str, values: object) -> tuple[int, ...]:
    """Check label values above 0."""
    if not isinstance(values, Iterable) or isinstance(values, str) or not list(values):
        raise ValueError(f"{option}={values} is not valid: give a list of label values, such as [1,2].")
    return tuple(check_count(option, value, 1) for value in values)


def check_relabel(given: object) -> dict[int, int]:
    """Check what each label value becomes; keys may be the texts that JSON makes of them."""
    try:  # what has no items is caught below
        pairs = {int(old): check_count("relabel", new, 0) for old, new in given.items()}  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"relabel={given} is not valid: give label values and what each becomes: {{2: 1}}.") from error
    return {old: new for old, new in sorted(pairs.items()) if old != new}


def check_axes(option: str, value: str) -> str:
    """Check where three array axes lead, such as `RAS`."""
    if len(value) != 3 or any(len(set(value) & set(ends)) != 1 for ends in ("LR", "PA", "IS")):
        raise ValueError(
            f"{option}={value} is not valid: give three letters, one of R or L, one of A or P and one of S or I, such "
            "as RAS."
        )
    return value


def _two(option: str, value: object, meaning: str) -> tuple[float, float]:
    numbers = _numbers(value, 2)
    if not numbers:
        raise ValueError(f"{option}={value} is not valid: give two numbers, [{meaning}].")
    return float(numbers[0]), float(numbers[1])


def _numbers(value: object, count: int, kind: type = Real) -> list[Any]:
    """List so many numbers of what is like a list of them; nothing of any other value."""
    listed = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    right = len(listed) == count and all(isinstance(one, kind) and not isinstance(one, bool) for one in listed)
    return listed if right else []
