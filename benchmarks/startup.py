"""CPU time until help, and until the package is imported, in new processes: `python benchmarks/startup.py`."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from comparison import interleaved, options, write
from rich.console import Console
from rich.table import Table

from regcascade.cli.main import make_parser

ROOT = Path(__file__).parents[1]
PYTHON, TORCH = "python", "import torch"
AFTER_TORCH = 0.3  # that `import regcascade` may take beyond a bare `import torch`


def main() -> None:
    """Time each in turn, round by round, and compare with an empty interpreter and a bare `import torch`."""
    given = options(__doc__, repeats=7)
    (commands,) = (action.choices for action in make_parser()._actions if action.dest == "command")
    candidates = {PYTHON: ["-c", ""], TORCH: ["-c", TORCH], "import regcascade": ["-c", "import regcascade"]}
    candidates |= {f"regcascade {flag}": ["-m", "regcascade.cli", flag] for flag in ("--help", "--version")}
    candidates |= {f"regcascade {name} --help": ["-m", "regcascade.cli", name, "--help"] for name in commands}
    candidates |= {f"{name}.py --help": [str(ROOT / f"{name}.py"), "--help"] for name in ("train", "evaluate")}
    measured = interleaved({name: _cpu_seconds(words) for name, words in candidates.items()}, given.repeats)

    table = Table("", "CPU seconds", "over python", "over import torch", "to stay below", title="startup")
    rows = []
    for name, seconds in measured.items():
        over, limit = {base: seconds / measured[base] for base in (PYTHON, TORCH)}, _limit(name, measured[TORCH])
        numbers = (f"{seconds:.3f}", *(f"{ratio:.2f}" for ratio in over.values()))
        table.add_row(name, *numbers, "" if limit is None else f"{limit:.2f}")
        rows.append({"name": name, "cpu_seconds": seconds, "over": over, "limit": limit, "repeats": given.repeats})
    Console().print(table)
    write("startup", rows, given.out)


def _limit(name: str, torch: float) -> float | None:
    """The seconds that it is to stay below; none for what it is compared with."""
    if name in (PYTHON, TORCH):
        return None
    if name == "import regcascade":
        return torch + AFTER_TORCH
    if ".py " in name:  # Hydra composes and prints the whole config
        return 2.5
    return 0.3 if len(name.split()) == 2 else 0.6


def _cpu_seconds(words: list[str]) -> Callable[[], float]:
    """A function that runs Python with these arguments and tells its user and system time."""

    def run() -> float:
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with status {process.returncode}.")
        return usage.ru_utime + usage.ru_stime

    return run


if __name__ == "__main__":
    main()
