"""Write the page of every option, from the registries, the signatures, their docstrings and conf/."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import lightning as L
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from omegaconf import OmegaConf

from regcascade.cascades import CASCADES, Cascade, build
from regcascade.cli.run_folder import register_resolvers
from regcascade.data.augmentation import AUGMENTATIONS
from regcascade.data.datasets.base import DATA_SETS
from regcascade.data.module import RegistrationData
from regcascade.data.preprocessing.recipes import RECIPES
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.evaluation.baselines.base import METHODS
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.losses import Objective
from regcascade.losses.similarity import SIMILARITIES
from regcascade.losses.smoothness import REGULARIZERS
from regcascade.networks import NETS
from regcascade.networks.affine import AffineNetwork
from regcascade.report.paper.experiments import CONF
from regcascade.training.execution import Execution
from regcascade.training.optimizer import Optimization
from regcascade.utils.registry import Registry

INTRODUCTION = """\
# Every option

`python train.py KEY=VALUE` sets an option, and `GROUP=NAME` chooses a file of a group: `model=drnet model.scam=false`.
Values are YAML: `[1,2]` is a list, `{name: lncc, kernel_size: 7}` a mapping, `null` nothing. This page is made from the
signatures and configs of the program that it was built with. `python train.py GROUP=NAME --cfg job` prints what a
choice comes to.
"""
OWNERS: Mapping[str, Callable[[str], Sequence[type]]] = {  # of the options of a group's choice
    "model": lambda name: [NETS.get(name)],
    "cascade": lambda name: [CASCADES.get(name)],
    "affine": lambda name: [AffineNetwork],
    "loss": lambda name: [Objective],
    "optimizer": lambda name: [Optimization],
    "data": lambda name: [
        *([DATA_SETS.get(name)] if name in DATA_SETS.names() else []),
        Preprocessing,
        RegistrationData,
    ],
    "trainer": lambda name: [Execution, L.Trainer],
    "method": lambda name: [METHODS.get(name)] if name in METHODS.names() else [],
}
NAMED: Mapping[str, Mapping[str, Registry[Any]]] = {  # registries whose names are values of an option of a group
    "loss": {"loss.similarity": SIMILARITIES, "loss.regularizer": REGULARIZERS},
    "data": {"data.augmentation": AUGMENTATIONS},
}
INSTANTIATED = ("logger", "callbacks")  # groups of objects, each with the class that it names
SHARED: Mapping[str, tuple[str, type]] = {
    "data_preprocessing.yaml": ("Options of raw scans", Preprocessing),
    "data_loading.yaml": ("Options of every data set", RegistrationData),
}
YAML = {"None": "null", "True": "true", "False": "false"}
PYTHON = re.compile(r"\b(?:None|True|False)\b")
SENTENCE = re.compile(r"\.\s+(?=[A-Z`])")
LONGEST_TYPE = 60
WORDS = {int: "integer", float: "number", str: "text", bool: "true, false", NoneType: "null", Path: "path"}
COMMENT = re.compile(r"^(?:  )?(\w+):.*?\s#\s(.+)$", re.MULTILINE)
DESCRIBED = re.compile(r"^ {4}(\w+(?:, \w+)*)(?: \([^)]*\))?: (.+(?:\n {5,}.+)*)", re.MULTILINE)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        files.append(File.generated(config, "reference/options.md", content=page()))
    return files


def page() -> str:
    """Write the page: the options of no group, those of each group and its choices, and those of recipes."""
    train, evaluate = (
        yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")) for name in ("train", "evaluate")
    )
    groups = {name: default for one in train["defaults"] if one != "_self_" for name, default in one.items()}
    parts = [INTRODUCTION, "## Of no group\n"]
    parts += [alone("train", train, [build, Cascade.forward]), alone("evaluate", evaluate, [EvaluationOptions])]
    parts += [of_group(group, default) for group, default in sorted(groups.items())]
    parts += [of_group("method", "network", "evaluate")]
    parts += [
        "## recipe\n\nOptions of `regcascade prepare --recipe NAME --set KEY=VALUE`.\n",
        registered("recipe", RECIPES),
    ]
    return "\n".join(parts)


def alone(program: str, config: Mapping[str, Any], owners: Sequence[Callable[..., Any]]) -> str:
    """Write the options of a program that are in no group."""
    values = {key: value for key, value in config.items() if key not in ("defaults", "hydra", "reproduces", "paths")}
    return f"### {program}.py\n\n" + table(values, owners, comments(CONF / f"{program}.yaml"), by_comment=True)


def of_group(group: str, default: str | None, program: str = "train") -> str:
    """Write the choices of a group, each with its options; options that several choices share are written once."""
    chosen = f"Without a choice: `{group}={default}`." if default else "Without a choice: none."
    parts = [f"## {group}\n\n`{group}=NAME` of `{program}.py`. {chosen}\n"]
    paths = sorted((CONF / group).rglob("[!_]*.yaml"), key=lambda path: (path.stem != "default", path))
    names = {path: path.relative_to(CONF / group).with_suffix("").as_posix() for path in paths}
    if group not in (*OWNERS, *INSTANTIATED):  # sets options of other groups
        rows = [f"| `{group}={names[path]}` | {cell(header(path))} |" for path in paths]
        return "\n".join([*parts, "| choice | what |", "|---|---|", *rows, ""])
    shared: dict[str, Any] = {}
    for name, (title, owner) in SHARED.items() if group == "data" else ():
        values = yaml.safe_load((CONF / name).read_text(encoding="utf-8"))
        parts.append(f"### {title}\n\n{header(CONF / name)}\n\n{table(values, [owner], {}, 'data.')}")
        shared |= values
    for path in paths:
        config = compose("evaluate" if path.stem == "trained" else program, [f"{group}={names[path]}"])
        options: Any = OmegaConf.to_container(config[group])
        write = of_objects if group in INSTANTIATED else of_choice
        parts.append(f"### {group}={names[path]}\n\n{header(path)}\n\n{write(group, options, comments(path), shared)}")
        shared = options if path.stem == "default" else shared
    return "\n".join(parts + [registered(option, registry) for option, registry in NAMED.get(group, {}).items()])


def of_choice(group: str, options: Mapping[str, Any], explained: Mapping[str, str], shared: Mapping[str, Any]) -> str:
    """Write the options of a choice that are its own or differ from the shared ones, and where the others are."""
    values = {key: value for key, value in options.items() if key != "name" or group == "optimizer"}
    owners = OWNERS[group](options.get("name", ""))
    own = inspect.signature(owners[0]).parameters if group == "data" else {}
    differs = {key: value for key, value in values.items() if key in own or value != shared.get(key, ...)}
    text = table(differs, owners, explained, f"{group}.", by_comment=group == "trainer")
    if differs == values:
        return text
    if group == "data":
        titles = [title for name, (title, _) in SHARED.items() if "intensity" in values or "loading" in name]
        return f"{text}\nBesides: {' and '.join(f'[{title}](#{slug(title)})' for title in titles)}.\n"
    return f"{text}\nThe others are those of [{group}=default](#{group}default).\n"


def of_objects(group: str, options: Mapping[str, Any], explained: Mapping[str, str], _: Mapping[str, Any]) -> str:
    """Write the options of each object of a choice, from the signature of its class."""
    tables = []
    for name, given in options.items():
        values = {f"{name}.{key}": value for key, value in given.items() if not key.startswith("_")}
        if values:
            tables.append(table(values, [get_object(given["_target_"])], explained, f"{group}."))
    return "\n".join(tables) or table({}, [], {})


def registered(option: str, registry: Registry[Any]) -> str:
    """Write the options of each class of a registry, from its signature."""
    parts = []
    for name in registry.names():
        cls = registry.get(name)
        parameters = inspect.signature(cls).parameters.values()
        named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        values = {one.name: one.default for one in named if one.name not in registry.reserved}
        about = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"### {option}={name}\n\n{about}\n\n{table(values, [cls], {})}")
    return "\n".join(parts)


def table(
    values: Mapping[str, Any],
    owners: Sequence[Callable[..., Any]],
    explained: Mapping[str, str],
    prefix: str = "",
    by_comment: bool = False,
) -> str:
    """Write options as a table; what the docstrings of the owners leave open is said by the comments of the config.

    The comments come first if `by_comment`.
    """
    if not values:
        return "No options.\n"
    lines = ["| option | default | type | meaning |", "|---|---|---|---|"]
    for option, default in values.items():
        key = option.rpartition(".")[2]
        types = [found for owner in owners if (found := type_of(owner, key))]
        texts = [meanings(owner).get(key, "") for owner in owners]
        texts = [explained.get(key, ""), *texts] if by_comment else [*texts, explained.get(key, "")]
        meaning = next((text for text in texts if text), "")
        lines.append(f"| `{prefix}{option}` | {plain(default)} | {(types or [''])[0]} | {cell(meaning)} |")
    return "\n".join(lines) + "\n"


def type_of(owner: Callable[..., Any], key: str) -> str:
    """Say which values an option takes, by its annotation."""
    parameter = inspect.signature(owner).parameters.get(key)
    words = "" if parameter is None else in_words(parameter.annotation)
    return words if len(words) <= LONGEST_TYPE else ""


def in_words(annotation: Any) -> str:
    """Name a type as YAML's reader knows it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if origin in (Union, UnionType):
        words = [in_words(part) for part in parts if not (part is int and float in parts)]
        return " or ".join(word for word in dict.fromkeys(words) if word)
    if isinstance(origin, type):
        return "mapping" if issubclass(origin, Mapping) else "list"
    return WORDS.get(annotation, "")


def meanings(owner: Any) -> dict[str, str]:
    """Read what a class's docstring, or that of a class above it, says of each parameter."""
    found: dict[str, str] = {}
    for cls in reversed([one for one in getattr(owner, "__mro__", [owner]) if one.__module__ != "builtins"]):
        if not cls.__module__.startswith(("regcascade", "lightning")):
            continue
        own: dict[str, str] = {}  # the first entry of a name counts: parameters come before attributes
        for doc in (cls.__doc__, getattr(getattr(cls, "__init__", None), "__doc__", None)):
            for names, text in DESCRIBED.findall(inspect.cleandoc(doc or "")):
                text = re.sub(r"\s+", " ", text).replace("``", "`")
                text = text if cls.__module__.startswith("regcascade") else SENTENCE.split(text)[0]
                if not text.startswith("see `"):
                    own = dict.fromkeys(names.split(", "), PYTHON.sub(lambda word: YAML[word[0]], text)) | own
        found |= own
    return found


def comments(path: Path) -> dict[str, str]:
    """Read the comment that follows each option of a config."""
    return dict(COMMENT.findall(path.read_text(encoding="utf-8")))


def header(path: Path) -> str:
    """Read the comment that a config opens with."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    end = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.lstrip("# ").strip() for line in lines[:end])


def plain(value: Any) -> str:
    """Write a default as YAML, in one line."""
    if value is inspect.Parameter.empty or value == "???":
        return "required"
    value = list(value) if isinstance(value, tuple) else value
    return f"`{yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).split(chr(10))[0]}`"


def slug(title: str) -> str:
    """Make the anchor of a heading."""
    return title.lower().replace(" ", "-")


def cell(text: str) -> str:
    """Keep a text within its cell."""
    return re.sub(r"\|(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\|", text)
