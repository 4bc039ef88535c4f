"""Write one self-contained HTML page of evaluated runs: tables, tests, charts, the worst pairs, and provenance."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from regcascade.data.pairs import NamePair
from regcascade.evaluation.layout import BEFORE
from regcascade.report.figures.quality import UNREGISTERED, Tables, measure_of, worst_first
from regcascade.report.figures.run_figures import pair_figures, runs_again, set_figures
from regcascade.report.figures.stage_charts import stages_of
from regcascade.report.runs.provenance import facts_table, provenance, software
from regcascade.report.runs.run import Run, before_registration
from regcascade.report.tables.compare import Comparison, by_measure, columns_of, compare, notes, shown_table, values_of
from regcascade.report.tables.measure_names import KNOWN, MEASURES, heading, rounded, spread
from regcascade.utils.files import written_whole

WORST = 10
_ARROWS = {+1: " ↑", -1: " ↓", 0: ""}
_CAPTIONS = {
    "labels": "{measure} of every label and of their mean: a box from the first to the third quartile with the median, "
    "whiskers to the 5th and 95th percentile and a dot for each pair beyond (of fewer than 20 pairs, whiskers to the "
    "lowest and the highest).",
    "initial": "{measure} after registration against {measure} before, a mark for each pair; above the dashed line it "
    "improved. Pairs to the left need a large deformation. Lines, where there are enough pairs, join the means of "
    "groups of equally many, ordered by their initial {measure}.",
    "cases": "Pairs from the worst to the best, with the middle left out, by the mean of the methods' {measure}; the "
    "ring is before registration. Each is named moving → fixed.",
    "stages": "After every stage, and every repeat of one: the mean over pairs, and a band from the first to the third "
    "quartile. The time is from the start to the end of that step.",
    "cascades": "Against the number of cascaded networks n and against r, how often each is applied: mean {measure} "
    "with that of every structure, and the landmark distance with its quartiles over pairs.",
}


class Picture(NamedTuple):
    """An image as a data URI, and its caption."""

    source: str
    caption: str


class Case(NamedTuple):
    """A pair that was registered badly."""

    fixed: str
    moving: str
    measured: dict[str, str]  # before registration and after each method, as text
    pictures: list[Picture]  # a page of each run that could be drawn


def write_report(
    folders: Sequence[Path], runs: Sequence[Run], path: Path, worst: int = WORST, left_out: Sequence[str] = ()
) -> list[str]:
    """Write the page, whole or not at all; it loads nothing from anywhere.

    Args:
        folders: of the runs.
        runs: what `read_runs` found in them.
        path: the file; its folder is made if need be.
        worst: how many of the worst pairs to show.
        left_out: sentences on what the page lacks.

    Returns:
        `left_out`, and why there are no pictures of a run.

    Raises:
        ValueError: if no pair has Dice or CC, or if the file is a folder.
    """
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name the file to write, such as {path / 'report.html'}.")
    tables = {run.name: run.pairs for run in runs}
    names = list(tables)
    measure = KNOWN[measure_of(tables)].heading
    missing = list(left_out)
    sources = [provenance(folder) for folder in folders]
    comparison = _comparison(runs)
    arrows = {known.heading: known.heading + _ARROWS[known.better] for known in MEASURES}
    charts = set_figures(runs, stages_of(folders, names))
    content = {
        "title": ", ".join(names), "names": names, "facts": facts_table(names, sources), "pairs": len(runs[0].pairs),
        "table": shown_table(comparison).rename(columns=arrows), "tests": by_measure(comparison.tests),
        "notes": notes(comparison), "labels": _by_label(comparison.runs), "measure": measure,
        "charts": [Picture(data_uri(figure), _CAPTIONS[name].format(measure=measure)) for name, figure in charts],
        "cases": _cases(folders, tables, worst, missing), "missing": missing, "software": software(),
        "texts": {name: source.texts for name, source in zip(names, sources, strict=True)},
    }  # fmt: skip
    environment = Environment(
        loader=PackageLoader("regcascade.report.html", "templates"),
        autoescape=True,  # names and texts come from files that anybody may have written
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))  # a path need not be valid text
    return missing


def data_uri(figure: Figure) -> str:
    """Encode a figure as a URI of lossless WebP, which every browser shows and has half the bytes of PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", pil_kwargs={"lossless": True})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _comparison(runs: Sequence[Run]) -> Comparison:
    """The row before registration and the runs. Tests are between the runs; a single one is tested against that row."""
    try:
        initial = [before_registration(runs[0])]
    except ValueError:  # an evaluation that measured nothing before
        initial = []
    tests = compare(runs if len(runs) > 1 else [*initial, *runs]).tests
    measures, _, costs = columns_of([*initial, *runs])
    order = [measure.column for measure in MEASURES]
    measures.sort(key=lambda column: order.index(column) if column in order else len(order))
    return Comparison([*initial, *runs], [*measures, *costs], tests)


def _by_label(runs: Sequence[Run]) -> pd.DataFrame:
    """A row for each measure of a single label, a column for each run."""
    rows = []
    for column in columns_of(runs)[1]:
        name, decimals = heading(column)
        rows.append([name, *(spread(values_of(run, column), decimals) for run in runs)])
    return pd.DataFrame(rows, columns=["", *(run.name for run in runs)])


def _cases(folders: Sequence[Path], tables: Tables, count: int, missing: list[str]) -> list[Case]:
    """The worst pairs with their pictures; why there are none of a run is added to `missing`."""
    pairs: list[NamePair] = list(worst_first(tables)[:count])
    measure = measure_of(tables)
    first = next(iter(tables.values()))
    cases = []
    for pair in pairs:
        values = {UNREGISTERED: first.loc[pair, :][measure + BEFORE]} if measure + BEFORE in first else {}
        values |= {name: table.loc[pair, :].get(measure, math.nan) for name, table in tables.items()}
        shown = {name: rounded(value, KNOWN[measure].decimals) for name, value in values.items()}
        cases.append(Case(*pair, shown, []))
    failed: list[str] = []
    again = runs_again(folders, list(tables), failed) if cases else {}
    for drawn in pair_figures(again, [("worst", pair) for pair in pairs], failed):
        caption = f"{drawn.pair[1]} registered onto {drawn.pair[0]} by {drawn.run or 'each run'}."
        cases[pairs.index(drawn.pair)].pictures.append(Picture(data_uri(drawn.figure), caption))
    missing += [f"Pictures of {why}" for why in failed]
    return cases
