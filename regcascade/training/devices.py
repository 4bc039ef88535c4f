"""The devices of a training, from the options and from what launched its processes."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from regcascade.utils.launch import Launch, launched

DDP = "ddp_find_unused_parameters_true"  # stages that are fixed, and heads whose weight is 0, get no gradient


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
