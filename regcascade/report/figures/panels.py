"""Draw one cell of a page: a slice of an image, a flow, the outlines of labels, a deformed grid or a determinant."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from torch import Tensor

from regcascade.geometry.warp import jacobian_det
from regcascade.report.figures.planes import Plane
from regcascade.report.figures.style import DIVERGING, ORANGE, SKY_BLUE, YELLOW

GRID_LINES = 20  # across the longer side of the slice
OF_FIXED, OF_MOVING = SKY_BLUE, ORANGE
THICK, THIN = 1.5, 0.7  # points
LINE = SKY_BLUE
FOLDED = YELLOW  # the one colour that stands out from the dark brown of small determinants
SMALLEST_SHOWN, LARGEST_SHOWN = -2.0, 2.0  # of the determinant, as powers of two


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


def determinant_of(flow: Float[Tensor, "1 3 x y z"]) -> Float[Tensor, "1 1 x y z"]:
    """Jacobian determinant on the whole grid: the last plane of each axis repeats its neighbour."""
    return F.pad(jacobian_det(flow)[:, None], (0, 1) * 3, mode="replicate")


def flow_colours(flow: Float[Tensor, "1 3 x y z"], plane: Plane, full: float) -> Float[np.ndarray, "rows columns 3"]:
    """A slice of a flow in the colours of RCN (Figure 2): zero is white, full colour is `full` voxels.

    The absolute displacements along x, y and z take away red, green and blue: a shift along x alone is cyan, along y
    magenta, along z yellow, and along all three black.
    """
    return 1 - np.clip(plane.cut(flow.abs()) / max(full, 1e-6), 0, 1)


def outlines(labels: Integer[np.ndarray, "rows columns"]) -> Float[np.ndarray, "lines 2 2"]:
    """The edges of pixels on whose two sides the labels differ, as lines from one corner (x, y) to another.

    Pixel (row, column) reaches from column - 1/2 to column + 1/2 and from row - 1/2 to row + 1/2, as in `imshow`.
    """
    row, column = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.stack([np.stack([column + 0.5, row + end], -1) for end in (-0.5, 0.5)], 1)
    row, column = np.nonzero(labels[1:] != labels[:-1])
    level = np.stack([np.stack([column + end, row + 0.5], -1) for end in (-0.5, 0.5)], 1)
    return np.concatenate([upright, level])


def draw_flow(axes: Axes, view: View, flow: Tensor, full: float) -> None:
    """A flow in colours; `full` voxels are full colour."""
    view.show(axes, flow_colours(flow, view.plane, full))


def draw_difference(axes: Axes, view: View, image: Tensor, fixed: Tensor) -> None:
    """Image less fixed image: purple where it is brighter, brown where it is darker."""
    view.show(axes, view.plane.cut(image - fixed)[..., 0], DIVERGING, (-1.0, 1.0))


def draw_outlines(axes: Axes, view: View, image: Tensor, fixed_labels: Tensor, moved_labels: Tensor) -> None:
    """The outlines of two label maps over a dimmed image; where they agree the thin one lies in the thick one."""
    view.show(axes, 0.6 * view.plane.cut(image)[..., 0])
    for labels, colour, width in ((fixed_labels, OF_FIXED, THICK), (moved_labels, OF_MOVING, THIN)):
        lines = outlines(view.plane.cut(labels)[..., 0])
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width), autolim=False)


def draw_grid(axes: Axes, view: View, moved: Tensor, total: Tensor, determinant: Tensor) -> None:
    """The lines of the moving grid where the registration carries them: level sets of p + flow(p)."""
    plane = view.plane
    view.show(axes, 0.6 * plane.cut(moved)[..., 0])
    flow = plane.cut(total)
    rows, columns = np.indices(flow.shape[:2])
    step = max(max(flow.shape[:2]) / GRID_LINES, 2.0)
    across, up = plane.axes
    for position in (columns + flow[..., across], rows + flow[..., up]):
        levels = np.arange(np.floor(position.min() / step) * step, position.max() + step, step)
        axes.contour(position, levels=levels, colors=LINE, linewidths=0.5)
    _mark_folded(axes, view, determinant)


def draw_determinant(axes: Axes, view: View, determinant: Tensor) -> None:
    """The Jacobian determinant on a logarithmic scale, 1 (no change of volume) in the middle; folded voxels marked."""
    exponent = determinant.clamp(min=1e-3).log2()
    view.show(axes, view.plane.cut(exponent)[..., 0], DIVERGING, (SMALLEST_SHOWN, LARGEST_SHOWN))
    _mark_folded(axes, view, determinant)


def _mark_folded(axes: Axes, view: View, determinant: Tensor) -> None:
    folded = view.plane.cut(determinant <= 0)[..., 0]
    layer = np.zeros((*folded.shape, 4))
    layer[folded] = (*to_rgb(FOLDED), 1.0)
    view.show(axes, layer)
