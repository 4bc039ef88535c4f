"""One page for one registered pair: the images, every stage's result and flow, the grid, the labels."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from regcascade.geometry.warp import jacobian_det, warp_labels
from regcascade.metrics.correlation import correlation_coefficient
from regcascade.metrics.jacobian import folding_percent
from regcascade.metrics.overlap import mean_dice
from regcascade.registration import Registration
from regcascade.report.figures import panels
from regcascade.report.figures.sheet import SIDE, Sheet
from regcascade.report.figures.style import DIVERGING, POINTS, WIDTH, in_print_style, shortened
from regcascade.types import Batch, size_of

MOST_STAGES = 6
_FULL_COLOUR = 99.5  # percentile of the displacements in the planes: a few outliers would leave the rest pale


class _Stage(NamedTuple):
    title: str
    moved: Tensor
    flow: Tensor
    total: Tensor


class Pair(NamedTuple):
    """One pair of a batch, on the CPU, each volume `(1, C, X, Y, Z)`."""

    fixed: Tensor
    moving: Tensor
    labels: tuple[Tensor, Tensor] | None  # fixed and moving
    spacing: tuple[float, ...]
    stages: list[_Stage]  # those that are shown


@in_print_style
def registration_figure(batch: Batch, registration: Registration, index: int = 0) -> Figure:
    """Draw one pair of a batch and how the cascade registered it, 180 mm wide for print.

    Each row shows two things in three planes each, which go through the middle of the labels (or of the volume).

    Left: the fixed and the moving image; the image after each stage (at most six, evenly spaced, the first and the last
    among them); the moving grid deformed with its image; the Jacobian determinant. A determinant of 1 (no change of
    volume) is white. Folded voxels are yellow, in the grid too.

    Right: the regions of the labels over the fixed image before and after (without labels, the difference of the
    images); the flow that each stage adds; the total flow. The colours are RCN's, see `flow_colours`. The title says
    how many voxels (the 99.5th percentile in the planes) take away all of a colour.

    Slices have the proportions of the fixed scan in mm. Their first axis runs to the right and their second up, in the
    array's order. The axes of the figure are labelled by their titles.

    Args:
        batch: the pairs.
        registration: the result of the cascade for that batch.
        index: which pair of the batch.

    Raises:
        ValueError: if the batch has no such pair.
    """
    if not 0 <= index < len(batch["fixed"]):
        raise ValueError(f"registration_figure: there is no pair {index}; this batch has {len(batch['fixed'])}.")
    pair = pair_of(batch, registration, index)
    sheet = Sheet(planes_of(pair), size_of(pair.fixed), 4 + len(pair.stages))
    fixed, moving = (shortened(names[index], 40) for names in (batch["fixed_name"], batch["moving_name"]))
    count = len(registration.stages)
    hidden = f"   ({len(pair.stages)} of {count} stages)" if len(pair.stages) < count else ""
    _write_head(sheet, pair, f"{moving} onto {fixed}{hidden}")
    _draw_left(sheet, pair)
    _draw_right(sheet, pair)
    _draw_legend(sheet, pair)
    return sheet.figure


def as_image(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a figure into an array of colours."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def chosen_stages(count: int, most: int = MOST_STAGES) -> list[int]:
    """Choose which of `count` stages to show: all if few, else evenly spaced with the first and the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def pair_of(batch: Batch, registration: Registration, index: int = 0) -> Pair:
    """Take what is drawn of a pair and its registration."""

    def one(volume: Tensor) -> Tensor:
        volume = volume[index : index + 1].detach().cpu()
        return volume.float() if volume.is_floating_point() else volume

    stages, first = [], 0 if registration.affine is not None else 1
    for k in chosen_stages(len(registration.stages)):
        stage = registration.stages[k]
        title = "affine stage" if stage.affine is not None else f"stage {k + first}"
        stages.append(_Stage(title, one(stage.moved), one(stage.flow), one(stage.total)))
    labels = None
    if "fixed_labels" in batch and "moving_labels" in batch:
        labels = one(batch["fixed_labels"]), one(batch["moving_labels"])
    spacing = tuple(batch["fixed_spacing"][index].tolist())
    return Pair(one(batch["fixed"]), one(batch["moving"]), labels, spacing, stages)


def planes_of(pair: Pair) -> list[panels.Plane]:
    """Choose the planes of a pair, see `panels.planes_of`."""
    return panels.planes_of(pair.fixed, pair.labels[0] if pair.labels else None, pair.spacing)


def dice_text(fixed: Tensor, moved: Tensor) -> str:
    """Write the mean Dice of the labels that either map has."""
    present = sorted({*fixed.unique().tolist(), *moved.unique().tolist()} - {0})
    return f"Dice {mean_dice(moved, fixed, present).item():.3f}" if present else "none there"


def determinant_of(total: Tensor) -> Tensor:
    """Compute the Jacobian determinant on the whole grid."""
    return F.pad(jacobian_det(total)[:, None], (0, 1) * 3, mode="replicate")


def _write_head(sheet: Sheet, pair: Pair, heading: str) -> None:
    sides = " x ".join(str(side) for side in size_of(pair.fixed))
    spacing = " x ".join(f"{step:.3g}" for step in pair.spacing)
    planes = []
    for plane in sheet.planes:
        across, up = (panels.AXES[axis] for axis in plane.axes)
        planes.append(f"{panels.AXES[plane.normal]} = {plane.index} ({across} →, {up} ↑)")
    sheet.write(SIDE, sheet.height - 0.2, heading, size=POINTS + 3)
    sheet.write(SIDE, sheet.height - 0.37, f"{sides} voxels of {spacing} mm.")
    sheet.write(SIDE, sheet.height - 0.52, f"Planes: {', '.join(planes)}, in voxels along the axes of the array.")


def _draw_left(sheet: Sheet, pair: Pair) -> None:
    low = min(float(image.min()) for image in (pair.fixed, pair.moving))
    high = max(float(image.max()) for image in (pair.fixed, pair.moving))
    shown = [("fixed", pair.fixed), ("moving", pair.moving)]
    shown += [(f"after {stage.title}", stage.moved) for stage in pair.stages]
    for row, (name, volume) in enumerate(shown):
        cc = correlation_coefficient(volume, pair.fixed).item()
        for axes, plane in sheet.cells(row, False, name if row == 0 else f"{name}, CC {cc:.3f}"):
            plane.show(axes, plane.cut(volume)[..., 0], limits=(low, max(high, low + 1e-6)))
    last = pair.stages[-1]
    determinant = determinant_of(last.total)
    for axes, plane in sheet.cells(
        len(shown), False, f"moving grid, {folding_percent(last.total).item():.3f} % folded"
    ):
        panels.draw_grid(axes, plane, last.moved, last.total, determinant)
    for axes, plane in sheet.cells(len(shown) + 1, False, "Jacobian determinant"):
        panels.draw_determinant(axes, plane, determinant)


def _draw_right(sheet: Sheet, pair: Pair) -> None:
    last = pair.stages[-1]
    if pair.labels is None:
        for row, (when, image) in enumerate((("before", pair.moving), ("after", last.moved))):
            for axes, plane in sheet.cells(row, True, f"difference {when}"):
                plane.show(axes, plane.cut(image - pair.fixed)[..., 0], DIVERGING, (-1.0, 1.0))  # purple is brighter
    else:
        fixed, moving = pair.labels
        for row, (when, labels) in enumerate((("before", moving), ("after", warp_labels(moving, last.total)))):
            for axes, plane in sheet.cells(row, True, f"labels {when}, {dice_text(fixed, labels)}"):
                panels.draw_labels(axes, plane, pair.fixed, fixed, labels)
    flows = [*((f"flow of {stage.title}", stage.flow) for stage in pair.stages), ("total flow", last.total)]
    for row, (name, flow) in enumerate(flows, start=2):
        seen = np.concatenate([plane.cut(flow.abs()).ravel() for plane in sheet.planes])
        full = float(np.percentile(seen, _FULL_COLOUR))
        for axes, plane in sheet.cells(row, True, f"{name}, full colour: {full:.2f} voxels"):
            plane.show(axes, panels.flow_colours(flow, plane, full))


def _draw_legend(sheet: Sheet, pair: Pair) -> None:
    left, bottom = sheet.corner(3 + len(pair.stages), right=True)
    top = bottom + sheet.row_height
    bar = sheet.add_axes(left + 0.05, top - 0.1, 0.6 * sheet.half, 0.1)
    bar.set_label("colour bar")
    colours = ScalarMappable(Normalize(panels.SMALLEST_SHOWN, panels.LARGEST_SHOWN), DIVERGING)
    sheet.figure.colorbar(colours, cax=bar, orientation="horizontal", ticks=[-2, -1, 0, 1, 2], extend="both")
    bar.set_xticklabels(["¼", "½", "1", "2", "4"], fontsize=POINTS)
    bar.tick_params(length=2, pad=1)
    sheet.write(left, top + 0.04, "determinant")
    sheet.figure.legend(
        handles=panels.legend_entries(pair.labels is not None),
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, (top - 0.25) / sheet.height),
        ncols=3,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.0,
    )
    flows = "flows: white is none; x takes away red (cyan),\ny green (magenta), z blue (yellow)"
    sheet.write(left, top - 0.56, flows, anchor="top")
