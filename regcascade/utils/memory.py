"""Memory that this process can still take, within the limits of the machine, the container and the SLURM job."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

GIB = 2**30
MIB = 2**20
# For control groups of version 2 and 1: the file of the limit, the file of the use, the key of cached files.
VERSIONS = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_memory(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> float:
    """Estimate how many bytes this process can still take; infinite if nothing is known.

    This is the least of: the machine's available memory; what each control group around the process leaves of its
    limit; SLURM's grant on this node less what the process holds. Cached files count as free.

    Args:
        root: root of the file system.
        environment: environment variables of the process.
    """
    machine = _field(root / "proc/meminfo", "MemAvailable:") * 1024
    if math.isinf(machine):
        with suppress(AttributeError, OSError, ValueError):  # of a system without sysconf
            machine = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0.0, min(machine, _control_groups(root), _slurm(root, environment)))


def _control_groups(root: Path) -> float:
    """The least that the groups of the process and their parents leave of their limits."""
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
        limit_file, use_file, cached_key = VERSIONS[version]
        inside = Path(own.lstrip("/"))
        for mount in mounts:
            for group in (mount / part for part in (inside, *inside.parents)):  # containers mount theirs on top
                limit = _number("".join(_lines(group / limit_file)))
                if limit >= 2**60:  # what version 1 says where there is no limit
                    continue
                use = _number("".join(_lines(group / use_file)), 0.0)
                cached = _field(group / "memory.stat", cached_key, 0.0)
                left = min(left, limit - use + cached)
    return left


def _slurm(root: Path, environment: Mapping[str, str]) -> float:
    """SLURM's grant on this node less what the process holds; infinite outside a job that states it."""
    granted = _number(environment.get("SLURM_MEM_PER_NODE", ""))
    if granted == 0:  # --mem=0 asks for all of the node
        return math.inf
    if math.isinf(granted):
        per_cpu, cpus = (environment.get(name, "") for name in ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"))
        granted = _number(per_cpu) * _number(cpus)
    return granted * MIB - _field(root / "proc/self/status", "VmRSS:", 0.0) * 1024


def _field(path: Path, key: str, default: float = math.inf) -> float:
    """The number after a key in a file of lines `key number`."""
    words = (line.split() for line in _lines(path))
    return next((_number(found[1], default) for found in words if len(found) > 1 and found[0] == key), default)


def _number(text: str, default: float = math.inf) -> float:
    """A decimal number; the default for any other text, such as `max`."""
    return float(text) if text.isdecimal() else default


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
