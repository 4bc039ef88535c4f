"""Devices of a training: from the options and from the launcher of its processes."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from regcascade.utils.launch import check_cores, check_nodes, launched

DDP = "ddp_find_unused_parameters_true"  # fixed stages, and heads whose weight is 0, get no gradient


def placed(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve `devices`, `num_nodes` and `strategy` of the trainer options, and check them.

    `devices` and `num_nodes` may be `auto`: what the launcher started, or all GPUs of this machine. `strategy=auto`
    becomes DDP with several devices; with one, DDP becomes `auto`.

    Raises:
        ValueError: if a device does not exist, or the launcher started another number of processes.
    """
    launch = launched()
    if launch is not None and launch.launcher == "submitit" and "LOCAL_RANK" not in os.environ:
        _export_submitit()
    options = dict(trainer)
    devices, nodes = options.get("devices", "auto"), options.get("num_nodes", 1)
    _check_devices(str(options.get("accelerator", "auto")), devices)
    if launch is not None:
        each = launch.ranks // launch.nodes
        fits = devices in ("auto", -1, each) or (isinstance(devices, list) and len(devices) == each)
        if not fits or nodes not in ("auto", launch.nodes):
            raise ValueError(
                f"trainer.devices={devices} trainer.num_nodes={nodes}, but {launch.launcher} started {launch.ranks} "
                f"processes on {launch.nodes} machine(s): set trainer.devices={each} "
                f"trainer.num_nodes={launch.nodes}, or trainer=ddp, which takes what it finds."
            )
        devices, nodes = (each if devices in ("auto", -1) else devices), launch.nodes
    nodes = 1 if nodes == "auto" else nodes
    if not isinstance(nodes, int) or nodes < 1:
        raise ValueError(f"trainer.num_nodes={nodes}: it counts machines, 1 or more, or is auto.")
    if isinstance(devices, int) and (isinstance(devices, bool) or devices == 0 or devices < -1):
        raise ValueError(f"trainer.devices={devices}: it counts devices, 1 or more, lists them ([0,2]) or is auto.")
    check_nodes("trainer.num_nodes", nodes)
    options |= {"devices": devices, "num_nodes": nodes}
    several = devices_in_all(options) > 1
    strategy = options.get("strategy", "auto")
    if several and strategy in ("auto", "ddp"):
        options["strategy"] = DDP
    elif not several and str(strategy).startswith("ddp"):
        options["strategy"] = "auto"
    return options


def devices_in_all(options: Mapping[str, Any]) -> int:
    """Count the devices of `placed` options over all machines."""
    return options["num_nodes"] * _number(options["devices"], str(options.get("accelerator", "auto")))


def _check_devices(accelerator: str, devices: Any) -> None:
    gpus, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not gpus and not mps):
        check_cores("trainer.devices", _number(devices, "cpu"))
        return
    if mps or accelerator not in ("auto", "gpu", "cuda"):  # Lightning checks these
        return
    if not gpus:
        raise ValueError(
            f"trainer.accelerator={accelerator}: no GPU is visible here. Set trainer.accelerator=cpu, or see why "
            "(nvidia-smi; CUDA_VISIBLE_DEVICES; a CPU build of PyTorch)."
        )
    listed = devices if isinstance(devices, list) else []
    if (isinstance(devices, int) and devices > gpus) or any(isinstance(k, int) and k >= gpus for k in listed):
        raise ValueError(
            f"trainer.devices={devices}: {gpus} GPU(s) are visible here. Set trainer.devices={gpus} or fewer (GPUs "
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


def _export_submitit() -> None:
    """Set what Lightning reads of a launcher to the values of submitit's local tasks."""
    port = 20000 + int("".join(filter(str.isdigit, os.environ["SUBMITIT_LOCAL_JOB_ID"])) or 0) % 20000
    os.environ |= {
        "LOCAL_RANK": os.environ["SUBMITIT_LOCAL_LOCALID"],
        "NODE_RANK": "0",
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
    }
