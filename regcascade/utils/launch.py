"""Launchers of several processes: what they say of the ranks, and values that all ranks must share."""

import functools
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # imported late, since `--help` of the training imports this module

PATIENCE = timedelta(minutes=10)


class Launch(NamedTuple):
    """The launcher's name, the number of its processes, the number of this one, and the number of machines."""

    launcher: str
    ranks: int
    rank: int
    nodes: int


def launched() -> Launch | None:
    """Read what a launcher says of its processes; None if Lightning starts them itself, or there is only one."""
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        ranks = int(env["WORLD_SIZE"])
        launch = Launch("torchrun", ranks, int(env["RANK"]), ranks // int(env["LOCAL_WORLD_SIZE"]))
    elif SLURMEnvironment.detect():
        nodes = int(env.get("SLURM_NNODES", env.get("SLURM_JOB_NUM_NODES", 1)))
        launch = Launch("SLURM", int(env["SLURM_NTASKS"]), int(env.get("SLURM_PROCID", 0)), nodes)
    elif "SUBMITIT_LOCAL_NTASKS" in env:
        launch = Launch("submitit", int(env["SUBMITIT_LOCAL_NTASKS"]), int(env["SUBMITIT_LOCAL_GLOBALID"]), 1)
    else:
        return None
    return launch if launch.ranks > 1 else None


def check_nodes(option: str, nodes: int) -> None:
    """Raise ValueError for several machines that no launcher has started, which would wait for each other for ever."""
    if nodes > 1 and launched() is None and "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"{option}={nodes}, and no launcher started this process, so that it would wait for the other machines. "
            f"Start it by srun --nodes {nodes}, by torchrun --nnodes {nodes} on each machine, or with NODE_RANK, "
            f"MASTER_ADDR and MASTER_PORT set on each; or leave {option} out."
        )


def check_cores(option: str, processes: int) -> None:
    """Raise ValueError for more processes than there are CPU cores on this machine; two are always allowed."""
    cores = max(os.cpu_count() or 1, 2)
    if processes > cores:
        raise ValueError(
            f"{option}={processes} on a CPU: a process each, and there are {cores} CPU cores. Set {cores} or fewer, or "
            f"{option.removesuffix('devices')}accelerator=gpu for GPUs."
        )


def from_first_rank(name: str, value: Callable[[], str]) -> str:
    """Give all ranks of a launcher the value that rank 0 makes, before there is a process group.

    Where NODE_RANK, MASTER_ADDR and MASTER_PORT are set by hand, machines count as ranks.

    Raises:
        ValueError: if rank 0 does not answer.
    """
    rank = _rank_among_starters()
    if rank is None:
        return value()
    try:
        store = _store(rank == 0)
        key = f"regcascade/{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        if rank == 0:
            store.set(key, value())
        return store.get(key).decode()
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ValueError(
            f"Rank {rank} got no answer from rank 0 at {where} within {PATIENCE.seconds // 60} minutes: see whether it "
            "ended, or set MASTER_ADDR and MASTER_PORT to what all machines can reach."
        ) from error


def is_first_starter() -> bool:
    """Tell whether this is rank 0, by the launcher or the machine's number, before Lightning knows the ranks."""
    from regcascade.utils.distributed import is_first

    rank = _rank_among_starters()
    return is_first() if rank is None else rank == 0


def follow_parent() -> None:
    """End this process when its parent ends, for ranks that Lightning starts.

    Otherwise a rank that waits in a GPU collective stays for minutes after rank 0 was killed.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def outlive_parent(seconds: float = 5.0) -> None:
    """Wait for the parent to end by itself, at most some seconds, before ending by an error.

    Lightning kills rank 0 after another rank has ended; rank 0 needs time to report the error and close its loggers.
    """
    parent, end = os.getppid(), time.monotonic() + seconds
    while os.getppid() == parent and time.monotonic() < end:
        time.sleep(0.1)


def _rank_among_starters() -> int | None:
    if (launch := launched()) is not None:
        return launch.rank
    by_hand = {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ["NODE_RANK"]) if by_hand and "LOCAL_RANK" not in os.environ else None


@functools.cache
def _store(first: bool) -> "TCPStore":
    """Connect to rank 0. The connection is kept, since the process group later shares its server."""
    from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
    from torch.distributed import TCPStore

    slurm = "TORCHELASTIC_RUN_ID" not in os.environ and SLURMEnvironment.detect()
    environment = SLURMEnvironment() if slurm else LightningEnvironment()
    address = os.environ.get("MASTER_ADDR") or environment.main_address
    port = int(os.environ.get("MASTER_PORT") or environment.main_port)
    serves = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # else torchrun's own server does
    return TCPStore(address, port, None, serves, PATIENCE, wait_for_workers=False, multi_tenant=True)
