"""Several processes that share the pairs of an evaluation, one per device: they start, wait and end together."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from regcascade.utils.launch import launched

_LONG = timedelta(days=30)  # that a process waits for the last pair of the others


@dataclass(frozen=True)
class Share:
    """The pairs that one of several processes registers: every `of`-th of those left, from `rank` on.

    Attributes:
        rank: of this process, from 0; 0 writes the summary.
        of: how many processes there are.
        parent: the process that started this one and must outlive it; None where it is alone.
    """

    rank: int = 0
    of: int = 1
    parent: int | None = None

    @classmethod
    def of_fabric(cls, fabric: Fabric) -> "Share":
        """The share of this process, within `together`."""
        alone = fabric.world_size == 1
        return cls(fabric.global_rank, fabric.world_size, None if alone else os.getppid())

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            RuntimeError: if one of them has ended.
        """
        if self.of > 1:
            torch.distributed.monitored_barrier(timeout=_LONG)

    def check_parent(self) -> None:
        """Raise SystemExit if the process that started this one was killed: nobody would gather its rows."""
        if self.parent is not None and os.getppid() != self.parent:
            raise SystemExit("The evaluation was ended; this process of it ends too.")


ALONE = Share()


def devices_of(accelerator: str, devices: Any, num_nodes: int) -> Fabric:
    """Lightning's Fabric for one process per device, which `together` starts.

    Args:
        accelerator, devices, num_nodes: as in Lightning's Trainer; on a CPU a device is a process.

    Raises:
        ValueError: if there are no such devices, or another number of processes was launched.
    """
    several = devices != 1 or num_nodes != 1 or launched() is not None
    # Processes exchange no tensors, so gloo does on GPUs too and takes none of their memory.
    strategy = DDPStrategy(process_group_backend="gloo") if several else "auto"
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"accelerator={accelerator}, devices={devices}, num_nodes={num_nodes}: {error}") from error


@contextlib.contextmanager
def together(fabric: Fabric) -> Iterator[Share]:
    """Start the other processes, unless torchrun or srun has; all end when one fails.

    The others run the whole command, from its beginning to the end of the block.

    Raises:
        ValueError: if another number of processes was launched than there are devices.
    """
    try:
        fabric.launch()
    except ValueError as error:
        raise ValueError(f"The processes that were launched are not those of devices and num_nodes: {error}") from error
    try:
        yield Share.of_fabric(fabric)
    except BaseException:
        for process in getattr(fabric.strategy.launcher, "procs", ()):
            process.kill()
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
