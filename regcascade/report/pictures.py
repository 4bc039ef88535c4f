"""One page for one registered pair: the images, every stage's result and flow, the grid, the labels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch
from torch import Tensor

from regcascade.losses.similarity import correlation_coefficient
from regcascade.registration import Registration
from regcascade.report.panels import (
    FOLDED,
    OVERLAP,
    View,
    draw_determinant,
    draw_difference,
    draw_flow,
    draw_grid,
    draw_overlap,
    title,
)
from regcascade.report.planes import AXES, planes_of
from regcascade.spatial import warp_labels
from regcascade.types import Batch, size_of

MOST_STAGES = 6
DPI = 110
_COLUMN_INCHES = 2.1


class _Shown(NamedTuple):
    """A stage on the page."""

    title: str
    moved: Tensor
    flow: Tensor
    total: Tensor


class _Pair(NamedTuple):
    """One pair of a batch, on the CPU, each volume `(1, C, X, Y, Z)`."""

    fixed: Tensor
    moving: Tensor
    labels: tuple[Tensor, Tensor] | None  # fixed and moving
    spacing: tuple[float, ...]
    names: tuple[str, str]  # fixed and moving
    stages: list[_Shown]
    stage_count: int


def registration_figure(batch: Batch, registration: Registration, index: int = 0) -> Figure:
    """Draw one pair of a batch and how the cascade registered it.

    Columns: fixed, moving, then the moving image after each stage (at most six of them, evenly chosen, the
    first and the last among them). Rows: the three planes through the middle of the labels (of the volume
    where there are none), the one with most to see first; then, in that first plane, each stage's own flow
    and the total flow so far as colours: red, green and blue are the absolute displacement along x, y and z,
    full colour being the largest component in the slice, which the title gives in voxels. Beside them the
    overlap of the labels before and after (the difference of the images where there are none), the moving
    grid deformed with its image, folded voxels marked, and the Jacobian determinant. Every slice has the
    proportions of the fixed scan in mm; its first axis runs to the right and its second up, each in the
    array's order.

    Args:
        batch: the pairs.
        registration: the result of the cascade for that batch.
        index: which pair of the batch.

    Returns:
        A figure that belongs to no window; `figure.savefig(path)` writes it.

    Raises:
        ValueError: if the batch has no such pair.
    """
    pair = _pair(batch, registration, index)
    planes = planes_of(pair.fixed, pair.labels[0] if pair.labels else None)
    views = [View(plane, pair.spacing) for plane in planes]
    shapes = [plane.proportion(size_of(pair.fixed), pair.spacing) for plane in [*planes, planes[0], planes[0]]]
    figure, grid = _page([min(max(shape, 0.4), 2.0) for shape in shapes], 2 + len(pair.stages))
    for row, view in enumerate(views):
        _draw_images(figure, grid, row, view, pair)
    _draw_flows(figure, grid, len(views), views[0], pair)
    _draw_results(figure, grid, len(views), views[0], pair)
    _write_around(figure, pair)
    return figure


def as_image(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    """A figure as an array of colours."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def chosen_stages(count: int, most: int = MOST_STAGES) -> list[int]:
    """Which of `count` stages to show: all if few, else evenly spaced with the first and the last."""
    if count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def _pair(batch: Batch, registration: Registration, index: int) -> _Pair:
    count = len(batch["fixed"])
    if not 0 <= index < count:
        raise ValueError(f"registration_figure: there is no pair {index}; this batch has {count}.")

    def one(volume: Tensor) -> Tensor:
        volume = volume[index : index + 1].detach().cpu()
        return volume.float() if volume.is_floating_point() else volume

    stages, first = [], 0 if registration.affine is not None else 1
    for k in chosen_stages(len(registration.stages)):
        stage = registration.stages[k]
        name = "affine" if stage.affine is not None else f"stage {k + first}"
        stages.append(_Shown(name, one(stage.moved), one(stage.flow), one(stage.total)))
    labels = None
    if "fixed_labels" in batch and "moving_labels" in batch:
        labels = one(batch["fixed_labels"]), one(batch["moving_labels"])
    return _Pair(
        fixed=one(batch["fixed"]),
        moving=one(batch["moving"]),
        labels=labels,
        spacing=tuple(batch["fixed_spacing"][index].tolist()),
        names=(batch["fixed_name"][index], batch["moving_name"][index]),
        stages=stages,
        stage_count=len(registration.stages),
    )


def _page(heights: list[float], columns: int) -> tuple[Figure, GridSpec]:
    """An empty page whose rows have these heights in widths of a column."""
    gap = 0.3 / (_COLUMN_INCHES * sum(heights) / len(heights))
    width = _COLUMN_INCHES * columns + 0.5
    height = _COLUMN_INCHES * sum(heights) + 0.3 * (len(heights) - 1) + 1.6
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights),
        columns,
        height_ratios=heights,
        wspace=0.05,
        hspace=gap,
        left=0.4 / width,
        right=1 - 0.1 / width,
        bottom=0.6 / height,
        top=1 - 1.0 / height,
    )
    return figure, grid


def _draw_images(figure: Figure, grid: GridSpec, row: int, view: View, pair: _Pair) -> None:
    low = min(float(image.min()) for image in (pair.fixed, pair.moving))
    high = max(float(image.max()) for image in (pair.fixed, pair.moving))
    shown = [("fixed", pair.fixed), ("moving", pair.moving)]
    shown += [(f"after {stage.title}", stage.moved) for stage in pair.stages]
    for column, (name, volume) in enumerate(shown):
        axes = _axes(figure, grid, row, column)
        view.show(axes, view.plane.cut(volume)[..., 0], limits=(low, max(high, low + 1e-6)))
        if row == 0:
            cc = correlation_coefficient(volume, pair.fixed).item()
            title(axes, name if column == 0 else f"{name}\nCC {cc:.3f}")
        if column == 0:
            across, up = (AXES[axis] for axis in view.plane.axes)
            where = f"{AXES[view.plane.normal]} = {view.plane.index}"
            axes.set_xlabel(f"{across} →", fontsize=7, loc="left", labelpad=1)
            axes.set_ylabel(f"{up} →      {where}", fontsize=7, loc="bottom", labelpad=1)


def _draw_flows(figure: Figure, grid: GridSpec, row: int, view: View, pair: _Pair) -> None:
    for column, stage in enumerate(pair.stages, start=2):
        draw_flow(_axes(figure, grid, row, column), view, "own flow", stage.flow)
        draw_flow(_axes(figure, grid, row + 1, column), view, "total flow", stage.total)


def _draw_results(figure: Figure, grid: GridSpec, row: int, view: View, pair: _Pair) -> None:
    """The four cells under the fixed and the moving image."""
    before, after = _axes(figure, grid, row, 0), _axes(figure, grid, row, 1)
    last = pair.stages[-1]
    if pair.labels is None:
        draw_difference(before, view, "before", pair.moving, pair.fixed)
        draw_difference(after, view, "after", last.moved, pair.fixed)
    else:
        fixed, moving = pair.labels
        draw_overlap(before, view, "before", pair.fixed, fixed, moving)
        draw_overlap(after, view, "after", pair.fixed, fixed, warp_labels(moving, last.total))
    draw_grid(_axes(figure, grid, row + 1, 0), view, last.moved, last.total)
    draw_determinant(_axes(figure, grid, row + 1, 1), view, last.total)


def _write_around(figure: Figure, pair: _Pair) -> None:
    height = figure.get_figheight()
    fixed, moving = pair.names
    hidden = ""
    if len(pair.stages) < pair.stage_count:
        hidden = f"   ({len(pair.stages)} of {pair.stage_count} stages)"
    sides = " x ".join(str(side) for side in size_of(pair.fixed))
    spacing = " x ".join(f"{step:.3g}" for step in pair.spacing)
    facts = f"{sides} voxels of {spacing} mm. x, y, z: the axes of the array, arrows towards higher indices."
    flows = "Flows: |displacement| along x, y, z in red, green, blue; full colour is the slice's largest."
    figure.text(0.01, 1 - 0.12 / height, f"{moving} onto {fixed}{hidden}", fontsize=12, va="top", weight="bold")
    figure.text(0.01, 1 - 0.38 / height, facts, fontsize=8, va="top")
    figure.text(0.01, 0.08 / height, flows, fontsize=8, va="bottom")
    entries = [Patch(facecolor=FOLDED, label="folded")]
    if pair.labels is not None:
        overlap = [Patch(facecolor=colour, edgecolor="0.5", label=text) for colour, text in OVERLAP.items()]
        entries = overlap + entries
    figure.legend(
        handles=entries,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.2 / height),
        ncols=len(entries),
        fontsize=7.5,
        frameon=False,
        columnspacing=1.2,
    )


def _axes(figure: Figure, grid: GridSpec, row: int, column: int) -> Axes:
    axes = figure.add_subplot(grid[row, column])
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes
