"""Print style of figures: one width, one letter size, colours that everybody can tell apart, one legend."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from regcascade.utils.files import written_whole

WIDTH = 180 / 25.4  # inches: the text of an A4 page, both columns
DPI = 200
POINTS = 8  # the smallest letters

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "0.55"
SERIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY_BLUE, BLACK)
MARKERS = "osD^v<>P"  # one more than colours, so that a pair of both comes back after 56
DIVERGING = "PuOr"

# Decorates what draws a figure.
in_print_style = matplotlib.rc_context(
    {
        "font.size": POINTS,
        "axes.titlesize": POINTS + 1,
        "legend.fontsize": POINTS,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
    }
)


def empty_figure(height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Make an empty figure as wide as a page and so many inches high. It belongs to no window."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)


def series_style(number: int) -> tuple[str, str]:
    """The colour and the marker of a series by its number, from 0."""
    return SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]


def shortened(text: str, letters: int) -> str:
    """Shorten a name to so many letters: leave out its middle, as the ends tell names apart.

    >>> shortened("a_long_name_of_case_17", 9)
    'a_lo…e_17'
    """
    if len(text) <= letters:
        return text
    kept = letters - 1
    return text[: kept // 2] + "…" + text[len(text) - (kept - kept // 2) :]


def series_handle(number: int, name: str, joined: bool = True) -> Line2D:
    """Make the entry of a series in a legend: its marker, on a line where the marks are joined."""
    colour, marker = series_style(number)
    line: Literal["-", "none"] = "-" if joined else "none"
    return Line2D([], [], color=colour, marker=marker, markersize=5, linestyle=line, label=shortened(name, 40))


def legend_above(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    """Add one legend above the axes, in rows that fit the page."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), 100 // (longest + 6)))
    figure.legend(handles=list(handles), loc="outside upper left", ncols=columns, handlelength=1.4, columnspacing=1.2)


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all; make its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
