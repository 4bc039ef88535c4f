"""The `regcascade` command."""

import argparse
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module

from regcascade.cli.parsers import models, results, scans
from regcascade.cli.parsers.hydra_help import hydra_help
from regcascade.utils.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's error ends it with one line and status 1."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in models.OF_HYDRA:
        if given[1:] in (["-h"], ["--help"]):
            sys.stdout.write(hydra_help(given[0]))
            return
        # As `python -m` runs it, so that Lightning starts the other ranks of a training by that command.
        sys.argv[1:] = given[1:]
        runpy.run_module(f"regcascade.cli.{given[0]}", run_name="__main__", alter_sys=True)
        return
    parser = make_parser()
    options, rest = parser.parse_known_args(given)
    overrides = getattr(options, "overrides", None)
    if rest and (overrides is None or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if overrides is not None:
        overrides.extend(rest)  # argparse takes KEY=VALUE in one place only, before or after the flags
    from regcascade.cli.hydra_app import clear_errors  # imports wait until there is work to do
    from regcascade.utils.registry import import_user_modules

    with clear_errors():
        import_user_modules(getattr(options, "imports", ()))
        import_module(f"regcascade.cli.commands.{options.command}").run(options)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="regcascade", description="Cascades of networks for deformable registration of 3D medical images."
    )
    parser.add_argument("--version", action="version", version=f"regcascade {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for group in (models, scans, results):
        group.add(commands)
    return parser
