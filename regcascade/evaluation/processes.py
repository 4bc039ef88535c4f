"""Processes that share the pairs of an evaluation: which each has, waiting for one another, ending together."""

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
    """The pairs that one of several processes registers: of those that are left every `of`-th, from `rank` on.

    Attributes:
        rank: of this process, from 0, which is the one that writes what there is one of.
        of: how many processes there are.
        parent: the process that started this one, where it is to end with it.
    """

    rank: int = 0
    of: int = 1
    parent: int | None = None

    @classmethod
    def of_fabric(cls, fabric: Fabric) -> "Share":
        """That of this process, once `together` has begun."""
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
        """End this process if the one that started it has ended, as by a kill: nobody would gather its rows.

        Raises:
            SystemExit: if so.
        """
        if self.parent is not None and os.getppid() != self.parent:
            raise SystemExit("The evaluation was ended; this process of it ends too.")


ALONE = Share()


def devices_of(accelerator: str, devices: Any, num_nodes: int) -> Fabric:
    """Lightning's Fabric for one process per device, which `together` starts.

    Args:
        accelerator, devices, num_nodes: as of Lightning's Trainer; on a CPU a device is a process.

    Raises:
        ValueError: if there are no such devices, or another number of processes was launched.
    """
    several = devices != 1 or num_nodes != 1 or launched() is not None
    # Processes exchange no tensors, so that gloo will do on GPUs too and leaves their memory alone.
    strategy = DDPStrategy(process_group_backend="gloo") if several else "auto"
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"accelerator={accelerator}, devices={devices}, num_nodes={num_nodes}: {error}") from error


@contextlib.contextmanager
def together(fabric: Fabric) -> Iterator[Share]:
    """Start the other processes, where torchrun or srun has not; they end when this one fails, and it when they do.

    Within the block all of them run, from the beginning of the command on.

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
