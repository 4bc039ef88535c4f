"""What the benchmarks share: options, interleaved timing, a table of ratios, a result file."""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import monai
import torch
from rich.console import Console
from rich.table import Table

from regcascade.utils.files import written_whole
from regcascade.utils.timing import read_clock
from regcascade.utils.version import __version__

RESULTS = Path(__file__).parent / "results"


class Row(NamedTuple):
    """One comparison: seconds of each candidate, the first being ours."""

    name: str
    seconds: Mapping[str, float]
    limit: float | None = None  # of ours over the second


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds, each of which times every candidate")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of PyTorch")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line of a benchmark; sets the number of threads."""
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def options(description: str | None, repeats: int) -> argparse.Namespace:
    """The command line of a benchmark without options of its own."""
    return parsed(parser(description, repeats))


def interleaved(candidates: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median seconds of each candidate, measured A B A B after a round that does not count.

    What disturbs the machine for a while then disturbs all of them.
    """
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(repeats + 1):
        for name, seconds in candidates.items():
            taken = seconds()
            if round_number:
                measured[name].append(taken)
    return {name: statistics.median(values) for name, values in measured.items()}


def timed(task: Callable[[], Any], device: torch.device | str = "cpu") -> Callable[[], float]:
    """A function that runs a task and tells how long the device took for it."""
    on = torch.device(device)

    def run() -> float:
        start = read_clock(on)
        task()
        return read_clock(on) - start

    return run


def report(name: str, rows: list[Row], given: argparse.Namespace, machine: str = "") -> None:
    """Print the rows and write `<name>-<version>-<machine>.json`, the machine being its cores unless it is named."""
    table = Table("", *rows[0].seconds, "ratio", "limit", title=f"{name}, {given.threads} threads")
    results = []
    for row in rows:
        ours, theirs = list(row.seconds.values())[:2]
        times = [f"{1000 * seconds:.1f} ms" for seconds in row.seconds.values()]
        limit = "" if row.limit is None else f"<= {row.limit}"
        table.add_row(row.name, *times, f"{ours / theirs:.2f}", limit)
        measured = {"name": row.name, "seconds": row.seconds, "ratio": ours / theirs, "limit": row.limit}
        results.append(measured | {"threads": given.threads, "repeats": given.repeats})
    Console().print(table)
    write(name, results, given.out, machine)


def write(name: str, rows: Sequence[Mapping[str, Any]], folder: Path, machine: str = "") -> None:
    """Write rows into `<name>-<version>-<machine>.json`, with the versions they belong to.

    Rows that the file has under other names stay, if they are of the same versions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count()
    versions = {
        "regcascade": __version__, "torch": torch.__version__, "monai": monai.__version__,
        "python": platform.python_version(), "machine": platform.machine(), "cores": cores,
    }  # fmt: skip
    path = folder / f"{name}-{__version__}-{machine or f'{cores}cores'}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = all(before.get(key) == value for key, value in versions.items())
    new = {row["name"] for row in rows}
    kept = [row for row in before["rows"] if row["name"] not in new] if same else []
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(versions | {"rows": [*kept, *rows]}, indent=2) + "\n", encoding="utf-8")
