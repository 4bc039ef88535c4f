"""One page for one registered pair: the images, every stage's result and flow, the grid, the labels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
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
from regcascade.report.figures import panels
from regcascade.report.figures.panels import View
from regcascade.report.figures.planes import AXES, planes_of
from regcascade.report.figures.sheet import SIDE, Sheet
from regcascade.report.figures.style import POINTS, WIDTH, in_print_style, shortened
from regcascade.types import Batch, size_of

MOST_STAGES = 6
_FULL_COLOUR = 99.5  # percentile of the displacements in the planes: a few outliers would leave the rest pale


class _Shown(NamedTuple):
    """A stage on the sheet."""

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


@in_print_style
def registration_figure(batch: Batch, registration: Registration, index: int = 0) -> Figure:
    """Draw one pair of a batch and how the cascade registered it, 180 mm wide for print.

    Each row shows two things in three planes each, which go through the middle of the labels (or of the volume).

    Left: the fixed and the moving image; the image after each stage (at most six, evenly spaced, the first and the last
    among them); the moving grid deformed with its image; the Jacobian determinant. A determinant of 1 (no change of
    volume) is white. Folded voxels are yellow, in the grid too.

    Right: the outlines of the labels over the fixed image before and after (without labels, the difference of the
    images); the own flow of each stage; the total flow. The colours are RCN's: no displacement is white, and absolute
    displacements along x, y and z take away red, green and blue. The title says how many voxels (the 99.5th percentile
    in the planes) take away all of it.

    Slices have the proportions of the fixed scan in mm. Their first axis runs to the right and their second up, in the
    array's order.

    Args:
        batch: the pairs.
        registration: the result of the cascade for that batch.
        index: which pair of the batch.

    Returns:
        A figure that belongs to no window; `figure.savefig(path)` writes it. The axes are labelled by their titles.

    Raises:
        ValueError: if the batch has no such pair.
    """
    pair = _pair(batch, registration, index)
    views = [View(plane, pair.spacing) for plane in planes_of(pair.fixed, pair.labels[0] if pair.labels else None)]
    sheet = Sheet(views, size_of(pair.fixed), 4 + len(pair.stages))
    _write_head(sheet, pair)
    _draw_images(sheet, pair)
    _draw_before_and_after(sheet, pair)
    _draw_stages(sheet, pair)
    _draw_total(sheet, pair)
    _draw_legend(sheet, pair)
    return sheet.figure


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


def _write_head(sheet: Sheet, pair: _Pair) -> None:
    fixed, moving = (shortened(name, 40) for name in pair.names)
    hidden = ""
    if len(pair.stages) < pair.stage_count:
        hidden = f"   ({len(pair.stages)} of {pair.stage_count} stages)"
    sides = " x ".join(str(side) for side in size_of(pair.fixed))
    spacing = " x ".join(f"{step:.3g}" for step in pair.spacing)
    sheet.write(SIDE, sheet.height - 0.2, f"{moving} onto {fixed}{hidden}", size=POINTS + 3)
    planes = []
    for view in sheet.views:
        across, up = (AXES[axis] for axis in view.plane.axes)
        planes.append(f"{AXES[view.plane.normal]} = {view.plane.index} ({across} →, {up} ↑)")
    sheet.write(SIDE, sheet.height - 0.37, f"{sides} voxels of {spacing} mm.")
    sheet.write(SIDE, sheet.height - 0.52, f"Planes: {', '.join(planes)}, in voxels along the axes of the array.")


def _draw_images(sheet: Sheet, pair: _Pair) -> None:
    """The left half but for its last two rows."""
    low = min(float(image.min()) for image in (pair.fixed, pair.moving))
    high = max(float(image.max()) for image in (pair.fixed, pair.moving))
    shown = [("fixed", pair.fixed), ("moving", pair.moving)]
    shown += [(f"after {stage.title}", stage.moved) for stage in pair.stages]
    for row, (name, volume) in enumerate(shown):
        cc = correlation_coefficient(volume, pair.fixed).item()
        for axes, view in sheet.cells(row, False, name if row == 0 else f"{name}, CC {cc:.3f}"):
            view.show(axes, view.plane.cut(volume)[..., 0], limits=(low, max(high, low + 1e-6)))


def _draw_before_and_after(sheet: Sheet, pair: _Pair) -> None:
    """The right half of the first two rows."""
    last = pair.stages[-1]
    if pair.labels is None:
        for row, (when, image) in enumerate((("before", pair.moving), ("after", last.moved))):
            for axes, view in sheet.cells(row, True, f"difference {when}"):
                panels.draw_difference(axes, view, image, pair.fixed)
        return
    fixed, moving = pair.labels
    for row, (when, labels) in enumerate((("before", moving), ("after", warp_labels(moving, last.total)))):
        for axes, view in sheet.cells(row, True, f"labels {when}, {_dice(fixed, labels)}"):
            panels.draw_outlines(axes, view, pair.fixed, fixed, labels)


def _draw_stages(sheet: Sheet, pair: _Pair) -> None:
    for row, stage in enumerate(pair.stages, start=2):
        _draw_flow(sheet, row, f"flow of {stage.title}", stage.flow)


def _draw_total(sheet: Sheet, pair: _Pair) -> None:
    last, row = pair.stages[-1], 2 + len(pair.stages)
    determinant = panels.determinant_of(last.total)
    _draw_flow(sheet, row, "total flow", last.total)
    for axes, view in sheet.cells(row, False, f"moving grid, {folding_percent(last.total).item():.3f} % folded"):
        panels.draw_grid(axes, view, last.moved, last.total, determinant)
    for axes, view in sheet.cells(row + 1, False, "Jacobian determinant"):
        panels.draw_determinant(axes, view, determinant)


def _draw_flow(sheet: Sheet, row: int, what: str, flow: Tensor) -> None:
    seen = np.concatenate([view.plane.cut(flow.abs()).ravel() for view in sheet.views])
    full = float(np.percentile(seen, _FULL_COLOUR))
    for axes, view in sheet.cells(row, True, f"{what}, full colour: {full:.2f} voxels"):
        panels.draw_flow(axes, view, flow, full)


def _draw_legend(sheet: Sheet, pair: _Pair) -> None:
    left, bottom = sheet.corner(3 + len(pair.stages), right=True)
    top = bottom + sheet.row_height
    bar = sheet.add_axes(left + 0.05, top - 0.1, 0.6 * sheet.half, 0.1)
    bar.set_label("colour bar")
    colours = ScalarMappable(Normalize(panels.SMALLEST_SHOWN, panels.LARGEST_SHOWN), panels.DIVERGING)
    sheet.figure.colorbar(colours, cax=bar, orientation="horizontal", ticks=[-2, -1, 0, 1, 2], extend="both")
    bar.set_xticklabels(["¼", "½", "1", "2", "4"], fontsize=POINTS)
    bar.tick_params(length=2, pad=1)
    sheet.write(left, top + 0.04, "determinant")
    entries: list[Line2D | Patch] = [Patch(facecolor=panels.FOLDED, edgecolor="0.5", label="folded")]
    if pair.labels is not None:
        entries.append(Line2D([], [], color=panels.OF_FIXED, linewidth=panels.THICK, label="fixed labels"))
        entries.append(Line2D([], [], color=panels.OF_MOVING, linewidth=panels.THIN, label="moving labels"))
    sheet.figure.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, (top - 0.25) / sheet.height),
        ncols=len(entries),
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.0,
    )
    flows = "flows: white is none; x takes away red (cyan),\ny green (magenta), z blue (yellow)"
    sheet.write(left, top - 0.48, flows, anchor="top")


def _dice(fixed: Tensor, moved: Tensor) -> str:
    """The mean Dice of the labels that are in either map."""
    present = sorted({*fixed.unique().tolist(), *moved.unique().tolist()} - {0})
    return f"Dice {mean_dice(moved, fixed, present).item():.3f}" if present else "none there"
