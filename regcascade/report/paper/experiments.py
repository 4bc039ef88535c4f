"""The rows of the papers' tables, from `conf/experiment`: what runs a row, and what the paper prints.

An experiment is a YAML file. Its block `reproduces` names the rows that its training, or its evaluation of another
method, is for. This block is the one source of the printed numbers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regcascade.utils.registry import did_you_mean

CONF = Path(__file__).parents[2] / "conf"
COST = "cost"  # among the sets of a row: what is measured once, of all sets
SETS = {"sliver": "SLIVER", "lits": "LiTS", "lspig": "LSPIG", "lpba": "LPBA"}
_SET_ORDER = (*SETS, "atlas 1", "atlas 2", "atlas 3", COST)
_MEASURE_ORDER = ("dice_mean", "landmark_distance_voxels", "cc", "seconds_gpu", "seconds_cpu", "paper_size_mib")
TABLES = {
    "rcn/1": "methods, baselines and recursive cascades",
    "rcn/2": "the number of cascades",
    "rcn/3": "shared weights: r x n means that each of n cascades is applied r times",
    "rcn/4": "variants of VoxelMorph (VM)",
    "rcn/5": "three atlases of LPBA",
    "drnet/1": "modules of DR-Net, SLIVER",
    "drnet/2": "modules of DR-Net, LiTS",
    "drnet/3": "weights of similarity (lambda1) and edge loss (lambda2)",
    "drnet/4": "networks; (L): with the edge loss",
    "drnet/5": "cascading strategies",
    "drnet/6": "single-scale and multi-scale loss (L)",
    "drnet/7": "cascades",
}
LABELS = {"rcn": "linear", "drnet": "nearest"}  # how a paper warps labels for Dice; DR-Net does not say
PAPERS = {"rcn": "RCN", "drnet": "DR-Net"}
_PRINTED = re.compile(r"(\d+\.?\d*)(?: \((\d+\.?\d*)\))?")


@dataclass(frozen=True)
class Row:
    """A row of a table, as far as one experiment gives it.

    Attributes:
        table: such as `rcn/2`.
        row: its place in the table, counted from 1.
        name: what heads it.
        experiment: the experiment's.
        data: the data set it is tested on, as in `data=`.
        method: what `evaluate.py` runs where nothing is trained; else None.
        printed: by set (or `cost`) and measure, as in the paper.
        r: how often each network is applied.
        sets: what a set is called in this table, where not by its own name.
    """

    table: str
    row: int
    name: str
    experiment: str
    data: str
    printed: Mapping[str, Mapping[str, str]]
    method: str | None = None
    r: int = 1
    sets: Mapping[str, str] | None = None

    @property
    def paper(self) -> str:
        """Whose table it is: `rcn` or `drnet`."""
        return self.table.split("/")[0]

    @property
    def command(self) -> str:
        """What runs it: the training, and an evaluation where r is not 1; or the evaluation of a method."""
        if self.method is not None:
            return f"evaluate.py method={self.method} data={self.data}"
        return f"train.py experiment={self.experiment}" + (f", evaluate.py r={self.r}" if self.r != 1 else "")


def read_rows(conf: Path = CONF) -> list[Row]:
    """The rows of all experiments.

    Raises:
        ValueError: if there are no experiments, or naming the file whose `reproduces` is not as it should be.
    """
    folder = conf / "experiment"
    if not folder.is_dir():
        raise ValueError(f"There is no {folder}: the papers' experiments come with the repository, so run it there.")
    rows = []
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):  # rcn/ before rcn/brain/
        block = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("reproduces")
        if block is not None:
            rows += _rows(block, path, path.relative_to(folder).with_suffix("").as_posix())
    return rows


def rows_of(table: str, rows: list[Row]) -> list[list[Row]]:
    """The rows of one table in its order, each with an entry for every experiment that gives a part of it.

    Raises:
        ValueError: if there is no such table.
    """
    if table not in TABLES:
        raise ValueError(f"There is no table {table}. Known: {', '.join(TABLES)}.{did_you_mean(table, TABLES)}")
    of_table = [row for row in rows if row.table == table]
    places = sorted({row.row for row in of_table})
    return [[row for row in of_table if row.row == place] for place in places]


def title(table: str) -> str:
    """The title of a table.

    >>> title("rcn/2")
    'RCN, Table 2: the number of cascades'
    """
    paper, number = table.split("/")
    return f"{PAPERS[paper]}, Table {number}: {TABLES[table]}"


def columns_of(rows: Sequence[Sequence[Row]]) -> list[tuple[str, str]]:
    """The sets and measures that a table prints: set by set, costs at the end."""
    found = {(name, measure) for parts in rows for part in parts for name, of in part.printed.items() for measure in of}
    return sorted(found, key=lambda column: (_SET_ORDER.index(column[0]), _MEASURE_ORDER.index(column[1])))


def printed_number(text: str) -> tuple[float, float | None]:
    """Mean and standard deviation as printed, the latter None where there is none.

    Raises:
        ValueError: if the text is not of that form.

    >>> printed_number("0.953 (0.014)")
    (0.953, 0.014)
    """
    found = _PRINTED.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not printed as 0.953 (0.014) or 0.953.")
    return float(found[1]), None if found[2] is None else float(found[2])


def _rows(block: Mapping[str, Any], path: Path, name: str) -> list[Row]:
    try:
        if block["experiment"] != name:
            raise ValueError(f"its experiment is {block['experiment']}")
        shared = {"experiment": name, "data": block["data"], "method": block.get("method")}
        rows = [Row(**shared, **row) for row in block["rows"]]
        for row in rows:
            for text in (text for measures in row.printed.values() for text in measures.values()):
                printed_number(text)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: reproduces is not as it should be ({error}). Compare another experiment's."
        ) from error
    return rows
