"""Registries of classes by name, and checks of options against signatures."""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Spec = str | Mapping[str, Any]


class Registry(Generic[T]):
    """Classes of one kind by name.

    Args:
        kind: what the classes are, for messages.
        reserved: constructor parameters that users do not set.
    """

    def __init__(self, kind: str, reserved: Sequence[str] = ()) -> None:
        self.kind = kind
        self.reserved = tuple(reserved)
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a decorator that registers a class. A name belongs to one class; importing its file again is fine."""

        def add(cls: type[T]) -> type[T]:
            known = self._classes.get(name, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"{self.kind} {name!r} is already {known.__module__}.{known.__qualname__}.")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """List the registered names, sorted."""
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """Find the class of a name; raise ValueError with the valid names if there is none."""
        if name not in self._classes:
            raise ValueError(
                f"Unknown {self.kind} {name!r}. Known: {', '.join(self.names())}.{did_you_mean(name, self.names())} "
                f"One of your own must be imported first (imports=[your_module])."
            )
        return self._classes[name]

    def name_of(self, cls: type[T]) -> str:
        """Find the name of a registered class."""
        return next(name for name, known in self._classes.items() if known is cls)

    def options(self, spec: Spec) -> tuple[str, dict[str, Any]]:
        """Split a spec (a name, or a mapping with `name` and options); check the options against the constructor."""
        if isinstance(spec, str):
            return spec, {}
        options = dict(spec)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"A {self.kind} is a name or a mapping with a 'name'; got {dict(spec)}.")
        check_options(f"{self.kind} {name!r}", options, self.get(name), self.reserved)
        return name, options

    def build(self, spec: Spec, **reserved: Any) -> T:
        """Build an instance from a spec and the reserved parameters; raise ValueError as `get` and `options` do."""
        name, options = self.options(spec)
        return self.get(name)(**options, **reserved)


def check_options(
    what: str, options: Mapping[str, Any], function: Callable[..., Any], reserved: Sequence[str] = ()
) -> None:
    """Check options against the signature of the function or class that takes them.

    Raises:
        ValueError: for an unknown option, or a value that does not fit an annotation of `Literal[...]` or of `int`,
            `float`, `bool`, `str` and None. The message lists what is valid.
    """
    signature = inspect.signature(function).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = {key: value for key, value in signature.items() if key not in reserved and value.kind not in variable}
    for key, value in options.items():
        if key not in parameters:
            hint = did_you_mean(str(key), parameters)
            raise ValueError(f"{what} has no option {key!r}. Known: {', '.join(sorted(parameters))}.{hint}")
        annotation = parameters[key].annotation
        if get_origin(annotation) is Literal:
            check_choice(f"{what}.{key}", value, get_args(annotation))
        kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
        if any(kind not in (int, float, bool, str, NoneType) for kind in kinds):
            continue
        allowed = (*kinds, int) if float in kinds else kinds
        if not (bool in kinds if isinstance(value, bool) else isinstance(value, allowed)):
            wanted = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{what}: {key}={value!r} is not of the right type; it wants {wanted}.")


def check_choices(prefix: str, options: Any) -> None:
    """Raise ValueError if a field of a dataclass has a value that its `Literal` annotation does not list."""
    for name, annotation in get_type_hints(type(options)).items():
        if get_origin(annotation) is Literal:
            check_choice(f"{prefix}.{name}", getattr(options, name), get_args(annotation))


def check_choice(option: str, value: Any, valid: Iterable[Any]) -> None:
    """Raise ValueError if the value of an option is not among the valid ones, which the message lists.

    >>> check_choice("mode", "nearst", ["linear", "nearest"])
    Traceback (most recent call last):
        ...
    ValueError: mode=nearst is not valid. Known: linear, nearest. Did you mean 'nearest'?
    """
    valid = list(valid)
    if value not in valid:
        known = ", ".join(str(choice) for choice in valid)
        raise ValueError(f"{option}={value} is not valid. Known: {known}.{did_you_mean(str(value), map(str, valid))}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest a known word for a misspelt one; empty if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def import_package(package: ModuleType) -> None:
    """Import every module of a package, so that its classes are registered."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def import_user_modules(modules: Iterable[str]) -> None:
    """Import a user's own classes from dotted module names or paths of Python files."""
    for module in [modules] if isinstance(modules, str) else modules:
        path = Path(module)
        if path.suffix == ".py" and not path.is_file():
            raise ValueError(f"imports: there is no file {path}.")
        try:
            if path.suffix == ".py":
                name = user_file_module(path)
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None and spec.loader is not None  # as for every .py file
                sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules[name])
            else:
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"imports: cannot import {module!r} ({error}). Give a module on PYTHONPATH or the path of a .py file."
            ) from error


def user_file_module(path: str | Path) -> str:
    """Name the module that a Python file of `imports` is loaded as; two files may share a stem."""
    return f"regcascade_user_{Path(path).stem}_{zlib.crc32(bytes(Path(path).resolve())):08x}"
