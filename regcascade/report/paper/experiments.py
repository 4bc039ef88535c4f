"""The rows of the papers' tables, from `conf/experiment`: what runs a row, and what the paper prints.

An experiment is a YAML file. Its block `reproduces` names the rows that its training, or its evaluation of another
method, reproduces. This block is the one source of the printed numbers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        row: its place in the table, from 1.
        name: its heading.
        experiment: name of the experiment.
        data: the data set it is tested on, as in `data=`.
        printed: the paper's numbers, by set (or `cost`) and measure.
        method: what `evaluate.py` runs where nothing is trained.
        r: how often each network is applied.
        sets: other names of sets in this table.
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
        """The paper: `rcn` or `drnet`."""
        return self.table.split("/")[0]

    @property
    def command(self) -> str:
        """The command that runs it: a training, with an evaluation where r is not 1; or an evaluation of a method."""
        if self.method is not None:
            return f"evaluate.py method={self.method} data={self.data}"
        return f"train.py experiment={self.experiment}" + (f", evaluate.py r={self.r}" if self.r != 1 else "")


def read_rows(conf: Path = CONF) -> list[Row]:
    """Read the rows of all experiments.

    Raises:
        ValueError: if there are no experiments, or naming the file whose `reproduces` is not as it should be.
    """
    folder = conf / "experiment"
    if not folder.is_dir():
        raise ValueError(f"There is no {folder}: the papers' experiments come with the repository, so run it there.")
    rows = []
    for path in sorted(folder.rglob("[!_]*.yaml"), key=lambda path: (len(path.parts), path)):  # rcn/ before rcn/brain/
        block = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("reproduces")
        if block is None:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            if block["experiment"] != name:
                raise ValueError(f"its experiment is {block['experiment']}")
            shared = {"experiment": name, "data": block["data"], "method": block.get("method")}
            own = [Row(**shared, **row) for row in block["rows"]]
            for text in (text for row in own for measures in row.printed.values() for text in measures.values()):
                printed_number(text)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            message = f"{path}: reproduces is not as it should be ({error}). Compare another experiment's."
            raise ValueError(message) from error
        rows += own
    return rows


def rows_of(table: str, rows: list[Row]) -> list[list[Row]]:
    """Get the rows of one table in its order, each with an entry for every experiment that gives a part of it."""
    if table not in TABLES:
        raise ValueError(f"There is no table {table}. Known: {', '.join(TABLES)}.{did_you_mean(table, TABLES)}")
    of_table = [row for row in rows if row.table == table]
    places = sorted({row.row for row in of_table})
    return [[row for row in of_table if row.row == place] for place in places]


def title(table: str) -> str:
    """Write the title of a table.

    >>> title("rcn/2")
    'RCN, Table 2: the number of cascades'
    """
    paper, number = table.split("/")
    return f"{PAPERS[paper]}, Table {number}: {TABLES[table]}"


def columns_of(rows: Sequence[Sequence[Row]]) -> list[tuple[str, str]]:
    """List the sets and measures that a table prints: set by set, costs at the end."""
    found = {(name, measure) for parts in rows for part in parts for name, of in part.printed.items() for measure in of}
    return sorted(found, key=lambda column: (_SET_ORDER.index(column[0]), _MEASURE_ORDER.index(column[1])))


def printed_number(text: str) -> tuple[float, float | None]:
    """Read mean and standard deviation (None where there is none) as printed; ValueError for any other text.

    >>> printed_number("0.953 (0.014)")
    (0.953, 0.014)
    """
    found = _PRINTED.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not printed as 0.953 (0.014) or 0.953.")
    return float(found[1]), None if found[2] is None else float(found[2])
