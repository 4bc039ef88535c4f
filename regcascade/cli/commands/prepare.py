"""`regcascade prepare`: make raw scans ready."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from regcascade.cli.console import key_and_value, label_names, say
from regcascade.data.datasets import set_lists
from regcascade.data.datasets.decathlon import decathlon_sources
from regcascade.data.datasets.rcn.manifest import is_manifest
from regcascade.data.datasets.rcn.sources import h5_sources
from regcascade.data.datasets.set_lists import SetList, read_set_list
from regcascade.data.io.images import check_no_h5
from regcascade.data.io.raw_scan import Source
from regcascade.data.io.scan_lists import find, read_table
from regcascade.data.options import check_spacing
from regcascade.data.preprocessing.case_files import PreparedCases
from regcascade.data.preprocessing.prepare import DONE, FAILED, KEPT, prepare
from regcascade.report.figures.contact_sheet import write_contact_sheets
from regcascade.report.tables.outcomes import outcome_table
from regcascade.utils.files import parse_yaml, read_yaml

LISTS = Path(set_lists.__file__).parent / "lists"
BESIDE = ("labels", "masks", "points")  # options of files that belong to --images
H5_ONLY = ("subset", "scans", "adjacent", "spacing", "axes")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    listed = None
    if options.list is not None:  # a file, or the name of a list that comes with regcascade
        ours = LISTS / f"{options.list}.yaml"
        by_name = options.list.suffix == "" and not options.list.exists() and ours.is_file()
        listed = read_set_list(ours if by_name else options.list)
        _take(options, listed)
    sources, names = _sources(options)
    excluded = []
    if options.exclude is not None:
        lines = _text("--exclude", options.exclude).splitlines()
        excluded = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    recipe = recipe_of(options.recipe or "generic", options.options)
    try:
        outcomes = prepare(
            sources,
            options.out,
            recipe,
            label_names={**names, **label_names(options.label_names)},
            exclude=excluded,
            workers=options.workers,
            store=options.store,
            align=options.align,
        )
        sheets = write_contact_sheets(PreparedCases(options.out), options.out)
    except OSError as error:
        raise ValueError(
            f"{options.out} cannot be written ({error.strerror or error}). Make room, or give another folder by --out; "
            "finished cases stay, and the same command goes on after them."
        ) from error
    Console().print(outcome_table(outcomes))
    say(f"Prepared: {options.out}. Look over {', '.join(sheet.name for sheet in sheets) or 'nothing'}.")
    ready = sum(outcome.outcome in (DONE, KEPT) for outcome in outcomes)
    if listed is not None and listed.cases not in (None, ready):
        say(f"{ready} scans are ready, and the papers use {listed.cases} of {listed.title}.")
    if any(outcome.outcome == FAILED for outcome in outcomes):
        raise SystemExit(1)


def _take(options: argparse.Namespace, listed: SetList) -> None:
    """Fill in the options that the command line leaves open from the list of a set."""
    form = "rcn_h5" if is_manifest(options.source) else "raw"
    given: Mapping[str, Any] | None = getattr(listed, form)
    if given is None:
        forms = "RCN's HDF5 files by their JSON" if form == "raw" else "raw scans"
        raise ValueError(f"{options.list} tells how to prepare {forms}, which {options.source} is not.")
    own_recipe = options.recipe is not None
    for key, value in given.items():
        if key == "set" and own_recipe:
            continue  # options of another recipe
        if key == "set":
            options.options = [f"{name}={json.dumps(one)}" for name, one in value.items()] + options.options
        elif key == "label_names":
            options.label_names = [f"{number}={name}" for number, name in value.items()] + options.label_names
        elif not getattr(options, key):
            setattr(options, key, value)


def _sources(options: argparse.Namespace) -> tuple[list[Source], dict[int, str]]:
    """Find the raw scans, and the names of their labels where known."""
    root: Path = options.source
    given = [key for key in ("images", *BESIDE, *H5_ONLY) if getattr(options, key)]
    if is_manifest(root):
        for key in set(given) - set(H5_ONLY):
            raise ValueError(f"--{key} is for a folder of scans; {root} lists what its HDF5 files hold.")
        spacing = check_spacing("--spacing", options.spacing or (1.0, 1.0, 1.0))
        return h5_sources(
            root, options.subset, options.scans, spacing, options.axes or "RAS", adjacent=options.adjacent
        )
    for key in given:
        if key in H5_ONLY:
            raise ValueError(f"--{key} is for the JSON of RCN's HDF5 files, which {root} is not.")
        if key in BESIDE and options.images is None:
            raise ValueError(f"--{key} needs --images, the glob of the images that these belong to.")
    if options.images is not None:
        return find(root, options.images, options.labels, options.masks, options.points), {}
    if root.is_dir():
        return decathlon_sources(root)
    if not root.is_file():
        raise ValueError(f"There is no {root}. Give a folder of scans, or a table of them.")
    check_no_h5(root)
    return read_table(root), {}


def recipe_of(recipe: str, options: Sequence[str]) -> dict[str, Any]:
    """Read --recipe and --set: the name of the recipe and its options."""
    spec: dict[str, Any] = {"name": recipe}
    if recipe.endswith((".yaml", ".yml")):
        content = read_yaml(Path(recipe))
        if not isinstance(content, dict):
            raise ValueError(f"{recipe} must hold the options of a recipe, its name among them.")
        spec = content
    return {**spec, **{key: _parsed(f"--set {key}={value}", value) for key, value in map(key_and_value, options)}}


def _text(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option} {path} cannot be read as a text file ({error}).") from error


def _parsed(what: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{what} is no valid YAML: {error}") from error
