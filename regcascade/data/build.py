"""From the options of a user to a data module."""

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

from regcascade.data.datasets.base import DATA_SETS
from regcascade.data.module import RegistrationData
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.utils.registry import Spec, check_options


def build_data(spec: Spec) -> RegistrationData:
    """Build the data module of a spec: a name, or a mapping with `name` and options, as `conf/data/*.yaml` lists them.

    Raises:
        ValueError: for an unknown data set, option or value, or data that is not as it should be.
    """
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"A data set is a name or a mapping with a 'name'; got {dict(spec)}.")  # type: ignore[arg-type]
    check_options(f"data set {name!r}", given, options_of(name))
    cls = DATA_SETS.get(name)

    def chosen(part: type) -> dict[str, Any]:
        return {key: value for key, value in given.items() if key in _parameters(part)}

    own = chosen(cls)
    if "preprocessing" in inspect.signature(cls).parameters:
        own["preprocessing"] = Preprocessing(**chosen(Preprocessing))
    data_set = cls(**own)
    return RegistrationData(data_set.cases, data_set.split, **{**cls.LOADING, **chosen(RegistrationData)})


def options_as_trained(name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """Find the options of a data set that make images as a checkpoint's were made, by its `preprocessing`."""
    known = {"size", *_parameters(Preprocessing)} & set(inspect.signature(options_of(name)).parameters)
    recipe = made.get("recipe") or {}
    intensity = {"intensity": "window" if "window" in recipe else "percentiles"} if recipe else {}
    return {key: value for key, value in {**made, **intensity, **recipe}.items() if key in known}


def options_of(name: str) -> Callable[..., Any]:
    """Build a stand-in for a data set whose signature lists every option with its default.

    First come its own options, then those of preprocessing if it has any, then those of loading.

    Raises:
        ValueError: for a name that is not registered.
    """
    cls = DATA_SETS.get(name)
    parts = [_parameters(cls), _parameters(RegistrationData)]
    if "preprocessing" in inspect.signature(cls).parameters:
        parts.insert(1, _parameters(Preprocessing))
    merged: dict[str, Parameter] = {}
    for key, parameter in (item for part in parts for item in part.items()):
        default = cls.LOADING.get(key, parameter.default)
        merged.setdefault(key, parameter.replace(kind=Parameter.KEYWORD_ONLY, default=default))

    def stand_in(**_: Any) -> None: ...

    stand_in.__signature__ = Signature(list(merged.values()))  # type: ignore[attr-defined]
    return stand_in


def _parameters(cls: type) -> dict[str, Parameter]:
    """List the options among the parameters of a constructor."""
    parameters = inspect.signature(cls).parameters.items()
    return {key: parameter for key, parameter in parameters if key not in ("cases", "split", "preprocessing")}
