"""What several parsers share."""

import argparse

Commands = argparse._SubParsersAction


def add_imports(parser: argparse._ActionsContainer) -> None:
    """Add --imports."""
    parser.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def add_label_names(parser: argparse.ArgumentParser) -> None:
    """Add --label-names."""
    parser.add_argument("--label-names", nargs="*", default=[], metavar="VALUE=NAME", help="1=liver 2=tumour")
