"""`regcascade model`: parameters and size of a model."""

import argparse

import torch
from rich.console import Console

from regcascade import cascades
from regcascade import networks as nets
from regcascade.cascades.base import parts
from regcascade.cli.commands.arguments import Commands
from regcascade.report.tables.terminal import model_table
from regcascade.utils.registry import import_user_modules


def add(commands: Commands) -> None:
    """Add the command to a parser's."""
    model = commands.add_parser(
        "model",
        help="print a model's parameters and size",
        description="Print the parameters of a model by part, their float32 size, and the size as the second paper "
        "counts it (weights and Adam's two moments, 12 bytes a parameter).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model.add_argument("network", nargs="?", default="voxelmorph", help=f"one of {', '.join(nets.names())}, or yours")
    model.add_argument("--cascade", default="cr", help=f"one of {', '.join(cascades.names())}, or yours")
    model.add_argument("-n", type=int, default=1, help="deformable stages")
    model.add_argument("--affine", default="none", choices=cascades.AFFINE_CHOICES, help="affine stage")
    model.add_argument(
        "--size",
        type=int,
        nargs=3,
        default=(128, 128, 128),
        metavar=("X", "Y", "Z"),
        help="sides of the volume",
    )
    model.add_argument("--imports", nargs="*", default=[], metavar="MODULE", help="your own modules or .py files")
    model.set_defaults(run=_print_model)


def _print_model(options: argparse.Namespace) -> None:
    import_user_modules(options.imports)
    with torch.device("meta"):  # counting needs no memory
        cascade = cascades.build(options.network, options.cascade, options.n, options.affine, options.size)
    Console().print(model_table(parts(cascade)))
