"""One pair, registered by several runs: their images, label regions and grids beside each other."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from regcascade.geometry.warp import jacobian_det, warp_labels
from regcascade.metrics.correlation import correlation_coefficient
from regcascade.metrics.jacobian import folding_percent
from regcascade.metrics.overlap import mean_dice
from regcascade.registration import Registration
from regcascade.report.figures import panels
from regcascade.report.figures.registration import Pair, pair_of
from regcascade.report.figures.style import WIDTH, empty_figure, in_print_style, shortened
from regcascade.types import Batch, size_of

MOST_BESIDE = 4  # runs beside each other; more go below
_TITLES, _HIGHEST = 1.0, 2.4  # inches of the titles of a block, and of a slice


class _Column(NamedTuple):
    title: str
    pair: Pair
    moved: Tensor
    labels: Tensor | None  # moved
    total: Tensor | None  # of the fixed image: None


@in_print_style
def side_by_side(results: Mapping[str, tuple[Batch, Registration]]) -> Figure:
    """Draw how runs registered one pair, a column each after the fixed and the moving image.

    Rows: the image in one plane; the regions of the labels over the fixed image in three planes, or without labels the
    difference of the images in one; the deformed grid. Titles tell Dice, CC and how much folds.

    Args:
        results: by the names of runs: a batch of the pair, and its registration.
    """
    pairs = {name: pair_of(*found) for name, found in results.items()}
    columns = [_column(name, pair, pair.stages[-1].moved, pair.stages[-1].total) for name, pair in pairs.items()]
    batch, pair = next(iter(results.values()))[0], columns[0].pair
    fixed = _Column(f"fixed {batch['fixed_name'][0]}", pair, pair.fixed, pair.labels and 0 * pair.labels[0], None)
    moving = _column(f"moving {batch['moving_name'][0]}", pair, pair.moving, 0 * pair.stages[-1].total)
    blocks = [columns[first : first + MOST_BESIDE] for first in range(0, len(columns), MOST_BESIDE)]
    across, planes = 2 + len(blocks[0]), _planes(pair)
    rows = [planes[0], *(planes if pair.labels else planes[:1]), planes[0]]
    sides = [side * step for side, step in zip(size_of(pair.fixed), pair.spacing, strict=True)]
    heights = [min(WIDTH / across * sides[plane.axes[1]] / sides[plane.axes[0]], _HIGHEST) for plane in rows]
    figure = empty_figure(0.4 + len(blocks) * (sum(heights) + _TITLES))
    grid = figure.subplots(len(rows) * len(blocks), across, squeeze=False, height_ratios=heights * len(blocks))
    for axes in grid.flat:
        axes.set_axis_off()
    for number, block in enumerate(blocks):
        for place, column in enumerate([fixed, moving, *block]):
            _draw(grid[number * len(rows) : (number + 1) * len(rows), place], column, int(96 / across))
    figure.legend(handles=panels.legend_entries(pair.labels is not None), loc="outside lower center", ncols=5)
    return figure


def _planes(pair: Pair) -> list[panels.Plane]:
    return panels.planes_of(pair.fixed, pair.labels[0] if pair.labels else None, pair.spacing)


def _column(title: str, pair: Pair, moved: Tensor, total: Tensor) -> _Column:
    return _Column(title, pair, moved, warp_labels(pair.labels[1], total) if pair.labels else None, total)


def _draw(rows: Sequence[Axes], column: _Column, letters: int) -> None:
    pair, planes, lines = column.pair, _planes(column.pair), [fill(shortened(column.title, 60), letters)]
    planes[0].show(rows[0], planes[0].cut(column.moved)[..., 0])
    if pair.labels is None or column.labels is None:
        planes[0].show(rows[1], planes[0].cut(column.moved - pair.fixed)[..., 0], panels.DIVERGING, (-1.0, 1.0))
    else:
        for axes, plane in zip(rows[1:-1], planes, strict=True):
            panels.draw_labels(axes, plane, pair.fixed, pair.labels[0], column.labels)
        present = sorted({*pair.labels[0].unique().tolist(), *column.labels.unique().tolist()} - {0})
        if column.total is not None and present:
            lines.append(f"Dice {mean_dice(column.labels, pair.labels[0], present).item():.3f}")
    if column.total is not None:
        lines.append(f"CC {correlation_coefficient(column.moved, pair.fixed).item():.3f}")
        determinant = F.pad(jacobian_det(column.total)[:, None], (0, 1) * 3, mode="replicate")  # on the whole grid
        panels.draw_grid(rows[-1], planes[0], column.moved, column.total, determinant)
        rows[-1].set_title(f"{folding_percent(column.total).item():.3f} % folded")
    rows[0].set_title("\n".join(lines))
