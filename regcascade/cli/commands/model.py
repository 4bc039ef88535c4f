"""`regcascade model`: print the parameters and the size of a model."""

import argparse

import torch
from rich.console import Console

from regcascade.cascades import build
from regcascade.cascades.base import parts
from regcascade.report.tables.terminal import model_table


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    with torch.device("meta"):  # counting needs no memory
        cascade = build(options.network, options.cascade, options.n, options.affine, options.size)
    Console().print(model_table(parts(cascade)))
