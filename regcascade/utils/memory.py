"""How much memory a process may still take: the machine's, its container's, its SLURM job's."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

GIB = 2**30
MIB = 2**20
# Of control groups, version 2 and 1: the limit, the use, and the key of cached files in memory.stat.
VERSIONS = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_memory(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> float:
    """Bytes that this process can still take, caches of files not counted; infinite where nothing is known.

    The least of what the machine has available, what every control group that the process is in leaves of its limit (a
    container's, or that of a SLURM job), and what SLURM granted the job on this node less what the process holds.

    Args:
        root: of the file system.
        environment: variables of the process.
    """
    return max(0.0, min(_machine(root), _control_groups(root), _slurm(root, environment)))


def _machine(root: Path) -> float:
    """What is available; all memory there is where that is not known."""
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return math.inf


def _control_groups(root: Path) -> float:
    """The least that the groups of the process, and those around them, leave of their limits."""
    left = math.inf
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if number == "0":
            mounts, version = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], 2
        elif "memory" in controllers.split(","):
            mounts, version = [root / "sys/fs/cgroup/memory"], 1
        else:
            continue
        inside = Path(own.lstrip("/"))
        # In a container the group of the process is mounted as the topmost one, whatever it is called outside.
        for mount in mounts:
            left = min(left, *(_left(mount / part, version) for part in (inside, *inside.parents)))
    return left


def _left(group: Path, version: int) -> float:
    """What a group leaves of its limit; infinite without one."""
    limit_file, use_file, cached_key = VERSIONS[version]
    limit, use = _number(group / limit_file), _number(group / use_file)
    if not math.isfinite(limit) or limit >= 2**60:  # version 1 says so where there is none
        return math.inf
    cached = (line.split()[1] for line in _lines(group / "memory.stat") if line.split()[:1] == [cached_key])
    return limit - (use if math.isfinite(use) else 0.0) + float(next(cached, 0))


def _slurm(root: Path, environment: Mapping[str, str]) -> float:
    """What SLURM granted on this node, less what this process holds; infinite outside a job that states it."""
    granted = _mib(environment, "SLURM_MEM_PER_NODE")
    if granted == 0:  # as asked for by --mem=0: all of the node
        return math.inf
    if not math.isfinite(granted):
        granted = _mib(environment, "SLURM_MEM_PER_CPU") * _count(environment.get("SLURM_CPUS_ON_NODE", ""))
    held = next((line.split()[1] for line in _lines(root / "proc/self/status") if line.startswith("VmRSS:")), "0")
    return granted - float(held) * 1024


def _mib(environment: Mapping[str, str], name: str) -> float:
    """Bytes of a variable in MiB; infinite where it is not set or no number."""
    text = environment.get(name, "")
    return float(text) * MIB if text.isdecimal() else math.inf


def _count(text: str) -> float:
    return float(text) if text.isdecimal() and text != "0" else math.inf


def _number(path: Path) -> float:
    """What a file holds; infinite if it is not there or holds no number, such as `max`."""
    text = next(iter(_lines(path)), "")
    return float(text) if text.isdecimal() else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
