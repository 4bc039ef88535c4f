"""Options that several commands have."""

import argparse
from pathlib import Path
from typing import Any

Commands = argparse._SubParsersAction


def add_path(parser: argparse._ActionsContainer, name: str, about: str, metavar: str = "FILE", **how: Any) -> None:
    """Add an option whose value is a path."""
    parser.add_argument(name, type=Path, metavar=metavar, help=about, **how)


def add_set(parser: argparse._ActionsContainer, about: str) -> None:
    """Add --set."""
    parser.add_argument("--set", dest="options", nargs="+", default=[], metavar="KEY=VALUE", help=about)


def add_size(parser: argparse.ArgumentParser, about: str, default: tuple[int, int, int] | None = None) -> None:
    """Add --size."""
    parser.add_argument("--size", type=int, nargs=3, default=default, metavar=("X", "Y", "Z"), help=about)


def add_imports(parser: argparse._ActionsContainer) -> None:
    """Add --imports."""
    parser.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def add_label_names(parser: argparse.ArgumentParser) -> None:
    """Add --label-names."""
    parser.add_argument("--label-names", nargs="*", default=[], metavar="VALUE=NAME", help="1=liver 2=tumour")
