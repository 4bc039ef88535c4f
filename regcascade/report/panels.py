"""The cells of a page: a slice of an image, of a flow, of labels that overlap, of a deformed grid."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from regcascade.metrics import folding_percent, mean_dice
from regcascade.report.planes import Plane
from regcascade.spatial import jacobian_det

GRID_LINES = 20  # across the longer side of the slice

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
ONLY_FIXED, ONLY_MOVED, BOTH, OTHER = "#0072B2", "#E69F00", "#F5F5F5", "#CC79A7"
OVERLAP = {ONLY_FIXED: "fixed only", ONLY_MOVED: "moving only", BOTH: "both", OTHER: "two structures"}
FOLDED, LINE = "#D55E00", "#56B4E9"
DIVERGING = "PuOr"


class View(NamedTuple):
    """A plane of a scan, and what its pixels measure.

    Attributes:
        plane: the slice.
        spacing: mm per voxel along each array axis.
    """

    plane: Plane
    spacing: tuple[float, ...]

    def show(
        self, axes: Axes, image: np.ndarray, colours: str = "gray", limits: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Draw a slice, `(rows, columns)` or with colours, in the scan's proportions."""
        axes.imshow(
            image,
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
            origin="lower",
            aspect=self.plane.aspect(self.spacing),
            interpolation="nearest",
        )


def flow_colours(flow: Float[Tensor, "1 3 x y z"], plane: Plane) -> tuple[np.ndarray, float]:
    """A slice of a flow as colours, and the displacement in voxels that is full colour.

    Red, green and blue are the absolute displacement along x, y and z over the largest component in the
    slice.

    Returns:
        `(rows, columns, 3)` in 0..1, and the largest component.
    """
    displacement = plane.cut(flow.abs())
    largest = float(displacement.max())
    return displacement / max(largest, 1e-6), largest


def overlap_areas(fixed: np.ndarray, moved: np.ndarray) -> dict[str, Bool[np.ndarray, "rows columns"]]:
    """Where two slices of labels agree and how they differ, by colour."""
    return {
        ONLY_FIXED: (fixed > 0) & (moved == 0),
        ONLY_MOVED: (moved > 0) & (fixed == 0),
        BOTH: (fixed > 0) & (fixed == moved),
        OTHER: (fixed > 0) & (moved > 0) & (fixed != moved),
    }


def draw_flow(axes: Axes, view: View, what: str, flow: Tensor) -> None:
    """A flow in colours; the title says what full colour is."""
    colours, largest = flow_colours(flow, view.plane)
    view.show(axes, colours)
    title(axes, f"{what}, to {largest:.2f} voxels")


def draw_difference(axes: Axes, view: View, when: str, image: Tensor, fixed: Tensor) -> None:
    """Image less fixed image: purple where it is brighter, brown where it is darker."""
    view.show(axes, view.plane.cut(image - fixed)[..., 0], DIVERGING, (-1.0, 1.0))
    title(axes, f"{when}: difference to fixed")


def draw_overlap(axes: Axes, view: View, when: str, image: Tensor, fixed_labels: Tensor, moved_labels: Tensor) -> None:
    """Two label maps over a dimmed image; the title has the mean Dice of the whole volume."""
    both = torch.cat([fixed_labels.unique(), moved_labels.unique()])
    present = [label for label in both.unique().tolist() if label > 0]
    dice = f"{mean_dice(moved_labels, fixed_labels, present).item():.3f}" if present else "none"
    view.show(axes, 0.55 * view.plane.cut(image)[..., 0])
    slices = (view.plane.cut(labels)[..., 0] for labels in (fixed_labels, moved_labels))
    for colour, area in overlap_areas(*slices).items():
        _paint(axes, view, area, colour, 0.45 if colour == BOTH else 0.9)
    title(axes, f"{when}: Dice {dice}")


def draw_grid(axes: Axes, view: View, moved: Tensor, total: Tensor) -> None:
    """The lines of the moving grid where the registration carries them: level sets of p + flow(p)."""
    plane = view.plane
    view.show(axes, 0.6 * plane.cut(moved)[..., 0])
    flow = plane.cut(total)
    rows, columns = np.indices(flow.shape[:2])
    step = max(max(flow.shape[:2]) / GRID_LINES, 2.0)
    across, up = plane.axes
    for position in (columns + flow[..., across], rows + flow[..., up]):
        levels = np.arange(np.floor(position.min() / step) * step, position.max() + step, step)
        axes.contour(position, levels=levels, colors=LINE, linewidths=0.6)
    _paint(axes, view, plane.cut(_determinant(total) <= 0)[..., 0], FOLDED, 1.0)
    title(axes, f"moving grid, {folding_percent(total).item():.3f} % folded")


def draw_determinant(axes: Axes, view: View, total: Tensor) -> None:
    """The Jacobian determinant on a logarithmic scale."""
    exponent = _determinant(total).clamp(min=1e-3).log2()
    view.show(axes, view.plane.cut(exponent)[..., 0], DIVERGING, (-1.0, 1.0))
    title(axes, "determinant, ½ (brown) to 2")


def title(axes: Axes, text: str) -> None:
    """What a cell shows."""
    axes.set_title(text, fontsize=8, pad=3)


def _determinant(flow: Tensor) -> Tensor:
    """Jacobian determinant on the whole grid: the last plane of each axis repeats its neighbour."""
    return F.pad(jacobian_det(flow)[:, None], (0, 1) * 3, mode="replicate")


def _paint(axes: Axes, view: View, area: np.ndarray, colour: str, opacity: float) -> None:
    layer = np.zeros((*area.shape, 4))
    layer[area] = (*to_rgb(colour), opacity)
    view.show(axes, layer)
