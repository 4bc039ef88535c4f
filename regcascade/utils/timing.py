"""The clock by which everything is timed."""

import time

import torch


def read_clock(device: torch.device) -> float:
    """Seconds by a clock, once the device has done what it was given: a GPU works on after a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
