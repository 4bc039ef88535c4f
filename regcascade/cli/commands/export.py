"""`regcascade export`: write a model for programs that know nothing of regcascade."""

import argparse

from regcascade.cascades.checkpoint import read
from regcascade.cli.console import say
from regcascade.inference.export import export


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    size = None if options.size is None else tuple(options.size)
    found = export(
        read(options.checkpoint), options.to, options.out, size, options.r, options.repeat, options.overwrite
    )
    say(
        f"Written: {options.out} ({options.to}, {' x '.join(map(str, found.size))} voxels).",
        f"Loaded back, it differs from the model on random pairs by at most {found.flow:.2g} voxels in the flow, which "
        f"reaches {found.displacement:.3g}, and {found.moved:.2g} in the moved image.",
    )
