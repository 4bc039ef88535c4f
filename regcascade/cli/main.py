"""The `regcascade` command."""

import argparse
from collections.abc import Sequence

from regcascade.cli.commands import (
    apply,
    compare,
    figures,
    import_,
    invert,
    model,
    prepare,
    profile,
    register,
    report,
    table,
)
from regcascade.cli.hydra_app import clear_errors
from regcascade.utils.version import __version__

COMMANDS = (model, profile, prepare, register, apply, invert, import_, compare, table, figures, report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error of the user's ends it with one line and status 1."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    overrides = getattr(options, "overrides", None)
    if rest and (overrides is None or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if overrides is not None:
        overrides.extend(rest)  # argparse takes KEY=VALUE in one place only, before or after the flags
    with clear_errors():
        options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regcascade",
        description="Cascades of networks for deformable registration of 3D medical images. "
        "Train with `python train.py`, evaluate with `python evaluate.py`.",
    )
    parser.add_argument("--version", action="version", version=f"regcascade {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
