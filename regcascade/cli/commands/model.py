"""`regcascade model`: parameters and size of a model."""

import argparse

import torch
from rich.console import Console

from regcascade.cascades import build
from regcascade.cascades.base import parts
from regcascade.report.tables.terminal import model_table
from regcascade.utils.registry import import_user_modules


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import_user_modules(options.imports)
    with torch.device("meta"):  # counting needs no memory
        cascade = build(options.network, options.cascade, options.n, options.affine, options.size)
    Console().print(model_table(parts(cascade)))
