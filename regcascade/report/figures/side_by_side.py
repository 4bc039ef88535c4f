"""One pair, registered by several runs: their images, label regions and grids beside each other."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from regcascade.geometry.warp import warp_labels
from regcascade.metrics.correlation import correlation_coefficient
from regcascade.metrics.jacobian import folding_percent
from regcascade.registration import Registration
from regcascade.report.figures import panels
from regcascade.report.figures.registration import Pair, determinant_of, dice_text, pair_of, planes_of
from regcascade.report.figures.style import WIDTH, empty_figure, in_print_style, shortened
from regcascade.types import Batch, size_of

MOST_BESIDE = 4  # runs beside each other; more go below
_Column = tuple[str, Pair, Tensor, Tensor | None]  # title, pair, moved image, total flow (of the fixed image None)
_TITLES, _HIGHEST = 1.0, 2.4  # inches of the titles of a block, and of a slice


@in_print_style
def side_by_side(results: Mapping[str, tuple[Batch, Registration]]) -> Figure:
    """Draw how runs registered one pair, a column each after the fixed and the moving image.

    Rows: the image in one plane; the regions of the labels over the fixed image in three planes, or without labels the
    difference of the images in one; the deformed grid. Titles tell Dice, CC and how much folds.

    Args:
        results: by the names of runs: a batch of the pair, and its registration.
    """
    pairs = {name: pair_of(*found) for name, found in results.items()}
    columns: list[_Column] = [
        (name, pair, pair.stages[-1].moved, pair.stages[-1].total) for name, pair in pairs.items()
    ]
    batch, pair = next(iter(results.values()))[0], columns[0][1]
    before = (f"moving {batch['moving_name'][0]}", pair, pair.moving, torch.zeros_like(pair.stages[-1].total))
    given: list[_Column] = [(f"fixed {batch['fixed_name'][0]}", pair, pair.fixed, None), before]
    blocks = [columns[first : first + MOST_BESIDE] for first in range(0, len(columns), MOST_BESIDE)]
    across, planes = 2 + len(blocks[0]), planes_of(pair)
    rows = [planes[0], *(planes if pair.labels else planes[:1]), planes[0]]
    sides = [side * step for side, step in zip(size_of(pair.fixed), pair.spacing, strict=True)]
    heights = [min(WIDTH / across * sides[plane.axes[1]] / sides[plane.axes[0]], _HIGHEST) for plane in rows]
    figure = empty_figure(0.4 + len(blocks) * (sum(heights) + _TITLES))
    grid = figure.subplots(len(rows) * len(blocks), across, squeeze=False, height_ratios=heights * len(blocks))
    for axes in grid.flat:
        axes.set_axis_off()
    for number, block in enumerate(blocks):
        for place, (name, of, moved, total) in enumerate([*given, *block]):
            cells = list(grid[number * len(rows) : (number + 1) * len(rows), place])
            _draw(cells, fill(shortened(name, 60), int(96 / across)), of, moved, total)
    figure.legend(handles=panels.legend_entries(pair.labels is not None), loc="outside lower center", ncols=5)
    return figure


def _draw(rows: Sequence[Axes], title: str, pair: Pair, moved: Tensor, total: Tensor | None) -> None:
    """Draw a column: of a total flow, or of the fixed image (None)."""
    planes = planes_of(pair)
    planes[0].show(rows[0], planes[0].cut(moved)[..., 0])
    if pair.labels is None:
        planes[0].show(rows[1], planes[0].cut(moved - pair.fixed)[..., 0], panels.DIVERGING, (-1.0, 1.0))
    else:
        fixed, moving = pair.labels
        labels = torch.zeros_like(fixed) if total is None else warp_labels(moving, total)
        for axes, plane in zip(rows[1:-1], planes, strict=True):
            panels.draw_labels(axes, plane, pair.fixed, fixed, labels)
        title += "" if total is None else f"\n{dice_text(fixed, labels)}"
    if total is not None:
        title += f"\nCC {correlation_coefficient(moved, pair.fixed).item():.3f}"
        panels.draw_grid(rows[-1], planes[0], moved, total, determinant_of(total))
        rows[-1].set_title(f"{folding_percent(total).item():.3f} % folded")
    rows[0].set_title(title)
