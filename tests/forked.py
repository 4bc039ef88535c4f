"""Runs functions in processes of their own, forked: they import nothing again, and may be killed."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def forked(function: Callable[..., Any], *arguments: Any) -> multiprocessing.Process:
    """A started process; fork, so that anything can be an argument."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def on_ranks(folder: Path, function: Callable[..., Any], *arguments: Any, ranks: int = 2, patience: int = 240) -> list:
    """What `function(rank, *arguments)` returns, or the text of what it raises, on ranks that train together."""
    port = free_port()
    processes = [forked(_one_rank, rank, ranks, port, folder, function, arguments) for rank in range(ranks)]
    for process in processes:
        process.join(patience)
        if process.is_alive():
            for each in processes:
                each.kill()
            raise TimeoutError("The ranks wait for one another.")
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(ranks)]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _one_rank(rank: int, ranks: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)  # a forked process has none of the threads that OpenMP believes in
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    os.environ["WORLD_SIZE"] = str(ranks)
    try:
        value = function(rank, *arguments)
    except Exception as error:
        traceback.print_exc()
        value = f"{type(error).__name__}: {error}"
    torch.save(value, folder / f"rank_{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
