"""The clock that all timings use."""

import time

import torch


def read_clock(device: torch.device) -> float:
    """Read a clock in seconds after the device has finished its work; a GPU works on after a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
