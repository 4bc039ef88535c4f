"""What memory is left, of machines, containers and jobs laid out in folders."""

import math
from pathlib import Path

import pytest

from regcascade.utils.memory import available_memory

GIB = 2**30
MACHINE = {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 67108864 kB\nCached: 5 kB\n"}  # 64 GiB


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {**MACHINE, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def gib(root: Path, environment: dict[str, str] | None = None) -> float:
    return available_memory(root, environment or {}) / GIB


def test_this_machine_has_some():
    assert 2**20 < available_memory() < 2**50 or available_memory() == math.inf


def test_without_limits_it_is_the_machines(tmp_path):
    assert gib(system(tmp_path, {})) == 64
    unlimited = {
        "proc/self/cgroup": "4:cpu,memory:/a\n0::/a\n",
        "sys/fs/cgroup/a/memory.max": "max\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "5\n",
    }
    assert gib(system(tmp_path, unlimited)) == 64


VERSIONS = {  # the group of the process, where its files lie, and what they hold
    1: (
        "9:name=systemd:/\n4:memory:/docker/abc\n",
        "sys/fs/cgroup/memory",
        {"limit_in_bytes": 8 * GIB, "usage_in_bytes": 3 * GIB, "stat": f"inactive_file 1\ntotal_inactive_file {GIB}"},
    ),
    2: (
        "0::/slice/job\n",
        "sys/fs/cgroup",
        {"max": 8 * GIB, "current": 3 * GIB, "stat": f"anon 7\ninactive_file {GIB}\nactive_file 9"},
    ),
}


@pytest.mark.parametrize(("version", "where"), [(1, ""), (1, "docker/abc/"), (2, ""), (2, "slice/"), (2, "slice/job/")])
def test_limits_of_the_group_and_those_around_it(version, where, tmp_path):
    """Also as in a container, where the group is mounted on top."""
    group, mount, held = VERSIONS[version]
    files = {f"{mount}/{where}memory.{name}": f"{content}\n" for name, content in held.items()}
    assert gib(system(tmp_path, {"proc/self/cgroup": group, **files})) == 8 - 3 + 1


def test_the_least_of_all_counts_and_none_is_below_zero(tmp_path):
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{9 * GIB}\n",
    }
    assert gib(system(tmp_path, files)) == 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "16384"}, 14),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, 6),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "2048"}, 64),  # --mem=0: all of the node
        ({"SLURM_MEM_PER_CPU": "2048"}, 64),
        ({"SLURM_MEM_PER_NODE": "16G"}, 64),
        ({"SLURM_MEM_PER_NODE": "999999"}, 64),
    ],
)
def test_slurm_grants_less_what_the_process_holds(environment, expected, tmp_path):
    """2 GiB."""
    root = system(tmp_path, {"proc/self/status": "Name: python\nVmRSS:\t 2097152 kB\n"})
    assert gib(root, environment) == expected


def test_garbage_is_passed_over(tmp_path):
    files = {
        "proc/self/cgroup": "nonsense\n0::/a\n::\n",
        "sys/fs/cgroup/a/memory.max": "lots\n",
        "sys/fs/cgroup/memory.max": "",
    }
    assert gib(system(tmp_path, files)) == 64
