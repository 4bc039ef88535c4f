"""One page for one registered pair: the images, every stage's result and flow, the grid, the labels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from regcascade.geometry.warp import warp_labels
from regcascade.metrics.correlation import correlation_coefficient
from regcascade.metrics.jacobian import folding_percent
from regcascade.metrics.overlap import mean_dice
from regcascade.registration import Registration
from regcascade.report.figures.panels import (
    DIVERGING,
    FOLDED,
    LARGEST_SHOWN,
    OF_FIXED,
    OF_MOVING,
    SMALLEST_SHOWN,
    THICK,
    THIN,
    View,
    determinant_of,
    draw_determinant,
    draw_difference,
    draw_flow,
    draw_grid,
    draw_outlines,
)
from regcascade.report.figures.planes import AXES, planes_of
from regcascade.report.figures.style import POINTS, WIDTH, empty_figure, in_print_style, shortened
from regcascade.types import Batch, size_of

MOST_STAGES = 6

# Of the page, in inches.
_SIDE, _BETWEEN_HALVES, _BETWEEN_PLANES = 0.08, 0.2, 0.04
_HEAD, _TITLE, _FOOT = 0.6, 0.19, 0.08
_LOWEST_ROW, _HIGHEST_ROW = 0.5, 2.2

_FULL_COLOUR = 99.5  # percentile of the displacements in the planes: a few outliers would leave the rest pale


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


class _Page:
    """Rows of six cells: three planes of one thing in the left half, and of another in the right half.

    All slices are drawn to one scale, as large as fits.

    Args:
        views: the three planes.
        size: sides of the volume in voxels.
        rows: how many.
    """

    def __init__(self, views: list[View], size: tuple[int, ...], rows: int) -> None:
        self.views = views
        sides = [side * step for side, step in zip(size, views[0].spacing, strict=True)]
        across, up = zip(*(tuple(sides[axis] for axis in view.plane.axes) for view in views), strict=True)
        self.half = (WIDTH - 2 * _SIDE - _BETWEEN_HALVES) / 2
        scale = min((self.half - 2 * _BETWEEN_PLANES) / sum(across), _HIGHEST_ROW / max(up))
        self.widths = [scale * width for width in across]
        self.row_height = max(scale * max(up), _LOWEST_ROW)
        self.height = _HEAD + rows * (_TITLE + self.row_height) + _FOOT
        self.figure = empty_figure(self.height)

    def cells(self, row: int, right: bool, text: str) -> list[tuple[Axes, View]]:
        """The three cells of half a row, under a title; the first row is 0."""
        left = self._left(right)
        bottom = self._bottom(row)
        self.write(left, bottom + self.row_height + 0.04, text)
        cells = []
        for view, width in zip(self.views, self.widths, strict=True):
            axes = self._axes(left, bottom, width)
            axes.set(xticks=[], yticks=[], label=text)
            axes.spines[:].set(visible=True, color="0.8", linewidth=0.5)
            cells.append((axes, view))
            left += width + _BETWEEN_PLANES
        return cells

    def free(self, row: int) -> tuple[float, float, float]:
        """What the right half of a row has to give where no cells are drawn: its left, bottom and width."""
        return self._left(True), self._bottom(row), self.half

    def write(self, left: float, bottom: float, text: str, size: int = POINTS, anchor: str = "baseline") -> None:
        """Write in inches from the lower left corner of the page."""
        self.figure.text(left / WIDTH, bottom / self.height, text, fontsize=size, va=anchor)

    def add_axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes in inches from the lower left corner of the page."""
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))

    def _axes(self, left: float, bottom: float, width: float) -> Axes:
        return self.add_axes(left, bottom, width, self.row_height)

    def _left(self, right: bool) -> float:
        return _SIDE + (self.half + _BETWEEN_HALVES if right else 0)

    def _bottom(self, row: int) -> float:
        return self.height - _HEAD - (row + 1) * (_TITLE + self.row_height)


@in_print_style
def registration_figure(batch: Batch, registration: Registration, index: int = 0) -> Figure:
    """Draw one pair of a batch and how the cascade registered it, 180 mm wide for print.

    Every row shows two things in three planes each, which go through the middle of the labels (of the volume
    where there are none). On the left: the fixed image, the moving one, the image after each stage (at most six
    of them, evenly chosen, the first and the last among them), the moving grid deformed with its image, and the
    Jacobian determinant (1, no change of volume, is white; folded voxels are yellow, in the grid too). On the
    right: the outlines of the labels over the fixed image, before and after (the difference of the images where
    there are none); the own flow of each stage and, beside the grid, the total one. Their colours are the first
    paper's: white is no displacement, and the absolute displacements along x, y and z take away red, green and
    blue; the title says how many voxels (the 99.5th percentile in the planes) take away all of it. Every slice has
    the proportions of the fixed scan in mm; its first axis runs to the right and its second up, each in the array's
    order.

    Args:
        batch: the pairs.
        registration: the result of the cascade for that batch.
        index: which pair of the batch.

    Returns:
        A figure that belongs to no window; `figure.savefig(path)` writes it. The label of its axes is what they
        show, as the title says it.

    Raises:
        ValueError: if the batch has no such pair.
    """
    pair = _pair(batch, registration, index)
    views = [View(plane, pair.spacing) for plane in planes_of(pair.fixed, pair.labels[0] if pair.labels else None)]
    page = _Page(views, size_of(pair.fixed), 4 + len(pair.stages))
    _write_head(page, pair)
    _draw_images(page, pair)
    _draw_before_and_after(page, pair)
    _draw_stages(page, pair)
    _draw_total(page, pair)
    _draw_legend(page, pair)
    return page.figure


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
        name = "affine stage" if stage.affine is not None else f"stage {k + first}"
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


def _write_head(page: _Page, pair: _Pair) -> None:
    fixed, moving = (shortened(name, 40) for name in pair.names)
    hidden = ""
    if len(pair.stages) < pair.stage_count:
        hidden = f"   ({len(pair.stages)} of {pair.stage_count} stages)"
    sides = " x ".join(str(side) for side in size_of(pair.fixed))
    spacing = " x ".join(f"{step:.3g}" for step in pair.spacing)
    page.write(_SIDE, page.height - 0.2, f"{moving} onto {fixed}{hidden}", size=POINTS + 3)
    planes = []
    for view in page.views:
        across, up = (AXES[axis] for axis in view.plane.axes)
        planes.append(f"{AXES[view.plane.normal]} = {view.plane.index} ({across} →, {up} ↑)")
    page.write(_SIDE, page.height - 0.37, f"{sides} voxels of {spacing} mm.")
    page.write(_SIDE, page.height - 0.52, f"Planes: {', '.join(planes)}, in voxels along the axes of the array.")


def _draw_images(page: _Page, pair: _Pair) -> None:
    """The left half but for its last two rows."""
    low = min(float(image.min()) for image in (pair.fixed, pair.moving))
    high = max(float(image.max()) for image in (pair.fixed, pair.moving))
    shown = [("fixed", pair.fixed), ("moving", pair.moving)]
    shown += [(f"after {stage.title}", stage.moved) for stage in pair.stages]
    for row, (name, volume) in enumerate(shown):
        cc = correlation_coefficient(volume, pair.fixed).item()
        for axes, view in page.cells(row, False, name if row == 0 else f"{name}, CC {cc:.3f}"):
            view.show(axes, view.plane.cut(volume)[..., 0], limits=(low, max(high, low + 1e-6)))


def _draw_before_and_after(page: _Page, pair: _Pair) -> None:
    """The right half of the first two rows."""
    last = pair.stages[-1]
    if pair.labels is None:
        for row, (when, image) in enumerate((("before", pair.moving), ("after", last.moved))):
            for axes, view in page.cells(row, True, f"difference {when}"):
                draw_difference(axes, view, image, pair.fixed)
        return
    fixed, moving = pair.labels
    for row, (when, labels) in enumerate((("before", moving), ("after", warp_labels(moving, last.total)))):
        for axes, view in page.cells(row, True, f"labels {when}, {_dice(fixed, labels)}"):
            draw_outlines(axes, view, pair.fixed, fixed, labels)


def _draw_stages(page: _Page, pair: _Pair) -> None:
    for row, stage in enumerate(pair.stages, start=2):
        _draw_flow(page, row, f"flow of {stage.title}", stage.flow)


def _draw_total(page: _Page, pair: _Pair) -> None:
    last, row = pair.stages[-1], 2 + len(pair.stages)
    determinant = determinant_of(last.total)
    _draw_flow(page, row, "total flow", last.total)
    for axes, view in page.cells(row, False, f"moving grid, {folding_percent(last.total).item():.3f} % folded"):
        draw_grid(axes, view, last.moved, last.total, determinant)
    for axes, view in page.cells(row + 1, False, "Jacobian determinant"):
        draw_determinant(axes, view, determinant)


def _draw_flow(page: _Page, row: int, what: str, flow: Tensor) -> None:
    seen = np.concatenate([view.plane.cut(flow.abs()).ravel() for view in page.views])
    full = float(np.percentile(seen, _FULL_COLOUR))
    for axes, view in page.cells(row, True, f"{what}, full colour: {full:.2f} voxels"):
        draw_flow(axes, view, flow, full)


def _draw_legend(page: _Page, pair: _Pair) -> None:
    left, bottom, width = page.free(3 + len(pair.stages))
    top = bottom + page.row_height
    bar = page.add_axes(left + 0.05, top - 0.1, 0.6 * width, 0.1)
    bar.set_label("colour bar")
    colours = ScalarMappable(Normalize(SMALLEST_SHOWN, LARGEST_SHOWN), DIVERGING)
    page.figure.colorbar(colours, cax=bar, orientation="horizontal", ticks=[-2, -1, 0, 1, 2], extend="both")
    bar.set_xticklabels(["¼", "½", "1", "2", "4"], fontsize=POINTS)
    bar.tick_params(length=2, pad=1)
    page.write(left, top + 0.04, "determinant")
    entries: list[Line2D | Patch] = [Patch(facecolor=FOLDED, edgecolor="0.5", label="folded")]
    if pair.labels is not None:
        entries.append(Line2D([], [], color=OF_FIXED, linewidth=THICK, label="fixed labels"))
        entries.append(Line2D([], [], color=OF_MOVING, linewidth=THIN, label="moving labels"))
    page.figure.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, (top - 0.25) / page.height),
        ncols=len(entries),
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.0,
    )
    flows = "flows: white is none; x takes away red (cyan),\ny green (magenta), z blue (yellow)"
    page.write(left, top - 0.48, flows, anchor="top")


def _dice(fixed: Tensor, moved: Tensor) -> str:
    """The mean Dice of the labels that are in either map."""
    present = sorted({*fixed.unique().tolist(), *moved.unique().tolist()} - {0})
    return f"Dice {mean_dice(moved, fixed, present).item():.3f}" if present else "none there"
