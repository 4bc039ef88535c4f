"""Processes that share the pairs of an evaluation, one per device: they start, wait and end together."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from regcascade.utils.launch import check_cores, check_nodes, launched

_LONG = timedelta(days=30)  # how long a process waits for the last pair of the others


@dataclass(frozen=True)
class Share:
    """The pairs that one of several processes registers: every `of`-th of those left, from `rank` on.

    Attributes:
        rank: number of this process; 0 writes the summary.
        of: number of processes.
        parent: id of the process that must outlive this one; None for a single process.
    """

    rank: int = 0
    of: int = 1
    parent: int | None = None

    def wait(self) -> None:
        """Wait until all processes are here; raise RuntimeError if one of them has ended."""
        if self.of > 1:
            torch.distributed.monitored_barrier(timeout=_LONG)

    def check_parent(self) -> None:
        """Raise SystemExit if the parent was killed: nobody would gather the rows."""
        if self.parent is not None and os.getppid() != self.parent:
            raise SystemExit("The evaluation was ended; this process of it ends too.")


ALONE = Share()


def devices_of(accelerator: str, devices: Any, num_nodes: int) -> Fabric:
    """Set up Lightning's Fabric for one process per device; on a CPU a device is a process.

    Raises:
        ValueError: if there are no such devices, or another number of processes was launched.
    """
    several = devices != 1 or num_nodes != 1 or launched() is not None
    # Processes exchange no tensors; gloo takes no GPU memory.
    strategy = DDPStrategy(process_group_backend="gloo") if several else "auto"
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"accelerator={accelerator}, devices={devices}, num_nodes={num_nodes}: {error}") from error
    check_nodes("num_nodes", num_nodes)
    if fabric.device.type == "cpu":
        check_cores("devices", fabric.world_size // num_nodes)
    return fabric


@contextlib.contextmanager
def together(fabric: Fabric) -> Iterator[Share]:
    """Start the other processes unless torchrun or srun has; end all of them when one fails.

    The others run the whole command, from its start to the end of the block.

    Raises:
        ValueError: if another number of processes was launched than there are devices.
    """
    try:
        fabric.launch()
    except ValueError as error:
        raise ValueError(f"The processes that were launched are not those of devices and num_nodes: {error}") from error
    try:
        yield Share(fabric.global_rank, fabric.world_size, None if fabric.world_size == 1 else os.getppid())
    except BaseException:
        for process in getattr(fabric.strategy.launcher, "procs", ()):
            process.kill()
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
