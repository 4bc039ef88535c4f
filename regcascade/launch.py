"""How a training is spread over devices and machines: what started its processes, and what they must agree on."""

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from torch.distributed import TCPStore

from regcascade import ranks

PATIENCE = timedelta(minutes=10)
DDP = "ddp_find_unused_parameters_true"  # stages that are fixed, and heads whose weight is 0, get no gradient


class Launch(NamedTuple):
    """The processes that a launcher started.

    Attributes:
        launcher: what started them.
        ranks: how many.
        rank: which of them this is.
        nodes: on how many machines.
    """

    launcher: str
    ranks: int
    rank: int
    nodes: int


def launched() -> Launch | None:
    """What a launcher says of its processes; None where Lightning starts them itself, or there is but one."""
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


def from_first_rank(name: str, value: Callable[[], str]) -> str:
    """A value that rank 0 makes and all ranks of a launcher have, before there is a process group.

    Machines on which Lightning starts the processes (NODE_RANK, MASTER_ADDR and MASTER_PORT set by hand) count as
    ranks here.

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
    """`ranks.is_first` before Lightning knows the ranks: by what the launcher says, or by machine where set by hand."""
    rank = _rank_among_starters()
    return ranks.is_first() if rank is None else rank == 0


def placed(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a trainer with `devices`, `num_nodes` and `strategy` as they are meant here, all checked.

    `devices` and `num_nodes` may be `auto`: what the launcher started, or all GPUs of this machine. With several
    devices, `strategy=auto` is DDP; with one, there is no use for it.

    Raises:
        ValueError: for more devices than there are, or others than the launcher has processes for.
    """
    launch = launched()
    _export_submitit(launch)
    options = dict(trainer)
    devices, nodes = options.get("devices", "auto"), options.get("num_nodes", 1)
    _check_devices(str(options.get("accelerator", "auto")), devices)
    if launch is not None:
        devices, nodes = _as_launched(launch, devices, nodes)
    nodes = 1 if nodes == "auto" else nodes
    if not isinstance(nodes, int) or nodes < 1:
        raise ValueError(f"trainer.num_nodes={nodes}: it counts machines, 1 or more, or is auto.")
    if isinstance(devices, int) and (isinstance(devices, bool) or devices == 0 or devices < -1):
        raise ValueError(f"trainer.devices={devices}: it counts devices, 1 or more, lists them ([0,2]) or is auto.")
    options |= {"devices": devices, "num_nodes": nodes}
    several = devices_in_all(options) > 1
    strategy = options.get("strategy", "auto")
    if several and strategy in ("auto", "ddp"):
        options["strategy"] = DDP
    elif not several and str(strategy).startswith("ddp"):
        options["strategy"] = "auto"
    return options


def devices_in_all(options: Mapping[str, Any]) -> int:
    """How many devices the options of a `placed` trainer name, over all machines."""
    return options["num_nodes"] * _number(options["devices"], str(options.get("accelerator", "auto")))


def follow_parent() -> None:
    """End this process when the one that started it has ended: for ranks that Lightning starts.

    A rank that waits for others inside of a GPU collective would otherwise stay for minutes after rank 0 was killed.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def outlive_parent(seconds: float = 5.0) -> None:
    """Stay for a moment while the process that started this one ends by itself.

    Lightning kills a training some time after it sees that one of its ranks ended by an error; rank 0, which has the
    same error, could then be cut off before it says so and closes its loggers.
    """
    parent, end = os.getppid(), time.monotonic() + seconds
    while os.getppid() == parent and time.monotonic() < end:
        time.sleep(0.1)


def _rank_among_starters() -> int | None:
    launch = launched()
    if launch is not None:
        return launch.rank
    by_hand = {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ["NODE_RANK"]) if by_hand and "LOCAL_RANK" not in os.environ else None


@functools.cache
def _store(first: bool) -> TCPStore:
    """A connection to rank 0, kept: the process group later shares its server."""
    slurm = "TORCHELASTIC_RUN_ID" not in os.environ and SLURMEnvironment.detect()
    environment = SLURMEnvironment() if slurm else LightningEnvironment()
    address = os.environ.get("MASTER_ADDR") or environment.main_address
    port = int(os.environ.get("MASTER_PORT") or environment.main_port)
    serves = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # torchrun has a server itself
    return TCPStore(address, port, None, serves, PATIENCE, wait_for_workers=False, multi_tenant=True)


def _as_launched(launch: Launch, devices: Any, nodes: Any) -> tuple[Any, Any]:
    each = launch.ranks // launch.nodes
    fits = devices in ("auto", -1, each) or (isinstance(devices, list) and len(devices) == each)
    if not fits or nodes not in ("auto", launch.nodes):
        raise ValueError(
            f"trainer.devices={devices} trainer.num_nodes={nodes}, and {launch.launcher} started {launch.ranks} "
            f"processes on {launch.nodes} machine(s): set trainer.devices={each} trainer.num_nodes={launch.nodes}, or "
            "trainer=ddp, which takes what it finds."
        )
    return (each if devices in ("auto", -1) else devices), launch.nodes


def _check_devices(accelerator: str, devices: Any) -> None:
    there = torch.cuda.device_count()
    other = torch.backends.mps.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not there and not other):
        cores = max(os.cpu_count() or 1, 2)
        if _number(devices, "cpu") > cores:
            raise ValueError(
                f"trainer.devices={devices} on a CPU: a process each, and there are {cores} CPU cores. Set {cores} or "
                "fewer, or trainer.accelerator=gpu for GPUs."
            )
    if accelerator == "cpu" or other or (accelerator == "auto" and not there):
        return
    if accelerator not in ("auto", "gpu", "cuda"):
        return  # Lightning knows it, or says that it does not
    if not there:
        raise ValueError(
            f"trainer.accelerator={accelerator}: no GPU is visible here. Set trainer.accelerator=cpu, or see why "
            "(nvidia-smi; CUDA_VISIBLE_DEVICES; a CPU build of PyTorch)."
        )
    wanted = devices if isinstance(devices, list) else []
    if (isinstance(devices, int) and devices > there) or any(isinstance(k, int) and k >= there for k in wanted):
        raise ValueError(
            f"trainer.devices={devices}: {there} GPU(s) are visible here. Set trainer.devices={there} or fewer (GPUs "
            "are numbered from 0), or trainer.devices=auto."
        )


def _number(devices: Any, accelerator: str) -> int:
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", -1):
        return torch.cuda.device_count() if accelerator != "cpu" and torch.cuda.is_available() else 1
    text = str(devices)
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdigit() else 1


def _export_submitit(launch: Launch | None) -> None:
    """Tell Lightning of submitit's local tasks as a launcher would."""
    if launch is None or launch.launcher != "submitit" or "LOCAL_RANK" in os.environ:
        return
    port = 20000 + int("".join(filter(str.isdigit, os.environ["SUBMITIT_LOCAL_JOB_ID"])) or 0) % 20000
    os.environ |= {
        "LOCAL_RANK": os.environ["SUBMITIT_LOCAL_LOCALID"],
        "NODE_RANK": "0",
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
    }
