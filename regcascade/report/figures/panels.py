"""Slices of a volume, and what is drawn in one cell of a page: an image, labels, a deformed grid, a determinant."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from torch import Tensor

from regcascade.report.figures.style import DIVERGING, GREEN, ORANGE, PURPLE, SKY_BLUE, YELLOW

AXES = "xyz"
GRID_LINES = 20  # across the longer side of the slice
OF_FIXED, OF_MOVING = SKY_BLUE, ORANGE
REGIONS = {"in both": GREEN, "fixed only": OF_FIXED, "moving only": OF_MOVING, "other structure": PURPLE}
THICK, THIN = 1.5, 0.7  # points
FOLDED = YELLOW  # stands out from the dark brown of small determinants
SMALLEST_SHOWN, LARGEST_SHOWN = -2.0, 2.0  # of the determinant, as powers of two


@dataclass(frozen=True)
class Plane:
    """A slice: all voxels whose index along the array axis `normal` is `index`."""

    normal: int
    index: int
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)  # mm per voxel along each array axis

    @property
    def axes(self) -> tuple[int, int]:
        """The array axes that run to the right and up the page."""
        across, up = (axis for axis in range(3) if axis != self.normal)
        return across, up

    def cut(self, volume: Shaped[Tensor, "1 c x y z"]) -> Shaped[np.ndarray, "rows columns c"]:
        """Cut the slice out of a volume; the first row is the lowest on the page."""
        return volume[0].select(1 + self.normal, self.index).permute(2, 1, 0).numpy()

    def show(
        self, axes: Axes, image: np.ndarray, colours: str = "gray", limits: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Draw a slice, `(rows, columns)` or with colours, in the proportions of its voxels in mm."""
        across, up = self.axes
        axes.imshow(
            image,
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
            origin="lower",
            aspect=self.spacing[up] / self.spacing[across],
            interpolation="nearest",
        )


def planes_of(
    image: Float[Tensor, "1 1 x y z"],
    labels: Shaped[Tensor, "1 1 x y z"] | None,
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> list[Plane]:
    """Choose the planes through the median labelled voxel, or the middle of the volume, the fullest first.

    The fullest has most labelled voxels or, where nothing is labelled, the largest spread of intensities.
    """
    inside = None if labels is None else (labels[0, 0] > 0).nonzero()
    if inside is None or len(inside) == 0:
        planes = [Plane(axis, side // 2, spacing) for axis, side in enumerate(image.shape[2:])]
        return sorted(planes, key=lambda plane: -float(plane.cut(image).std()))
    middle = inside.median(dim=0).values.tolist()
    planes = [Plane(axis, int(index), spacing) for axis, index in enumerate(middle)]
    return sorted(planes, key=lambda plane: -int((inside[:, plane.normal] == plane.index).sum()))


def flow_colours(flow: Float[Tensor, "1 3 x y z"], plane: Plane, full: float) -> Float[np.ndarray, "rows columns 3"]:
    """Colour a slice of a flow as RCN does (Figure 2): zero is white, full colour is `full` voxels.

    The absolute displacements along x, y and z take away red, green and blue: a shift along x alone is cyan, along y
    magenta, along z yellow, and along all three black.
    """
    return 1 - np.clip(plane.cut(flow.abs()) / max(full, 1e-6), 0, 1)


def outlines(labels: Integer[np.ndarray, "rows columns"]) -> Float[np.ndarray, "lines 2 2"]:
    """Find the edges of pixels on whose two sides the labels differ, as lines from one corner (x, y) to another.

    Pixel (row, column) reaches from column - 1/2 to column + 1/2 and from row - 1/2 to row + 1/2, as in `imshow`.
    """
    row, column = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.stack([np.stack([column + 0.5, row + end], -1) for end in (-0.5, 0.5)], 1)
    row, column = np.nonzero(labels[1:] != labels[:-1])
    level = np.stack([np.stack([column + end, row + 0.5], -1) for end in (-0.5, 0.5)], 1)
    return np.concatenate([upright, level])


def draw_labels(axes: Axes, plane: Plane, image: Tensor, fixed_labels: Tensor, moved_labels: Tensor) -> None:
    """Fill the regions of two label maps over an image by `REGIONS`, and draw their outlines.

    Where the outlines agree the thin one lies in the thick one.
    """
    plane.show(axes, 0.8 * plane.cut(image)[..., 0])
    fixed, moved = (plane.cut(labels)[..., 0] for labels in (fixed_labels, moved_labels))
    both = (fixed > 0) & (moved > 0)
    regions = (both & (fixed == moved), (fixed > 0) & ~both, (moved > 0) & ~both, both & (fixed != moved))
    layer = np.zeros((*fixed.shape, 4))
    for region, colour in zip(regions, REGIONS.values(), strict=True):
        layer[region] = (*to_rgb(colour), 0.5)
    plane.show(axes, layer)
    for labels, colour, width in ((fixed_labels, OF_FIXED, THICK), (moved_labels, OF_MOVING, THIN)):
        lines = outlines(plane.cut(labels)[..., 0])
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width), autolim=False)


def legend_entries(labels: bool) -> list[Patch]:
    """List the entries of a legend: folded voxels and, where there are labels, the colours of their regions."""
    folded = Patch(facecolor=FOLDED, edgecolor="0.5", label="folded")
    regions = [Patch(facecolor=colour, alpha=0.8, label=region) for region, colour in REGIONS.items()]
    return [folded, *(regions if labels else [])]


def draw_grid(axes: Axes, plane: Plane, moved: Tensor, total: Tensor, determinant: Tensor) -> None:
    """Draw the lines of the moving grid where the registration carries them: level sets of p + flow(p)."""
    plane.show(axes, 0.6 * plane.cut(moved)[..., 0])
    flow = plane.cut(total)
    rows, columns = np.indices(flow.shape[:2])
    step = max(max(flow.shape[:2]) / GRID_LINES, 2.0)
    across, up = plane.axes
    for position in (columns + flow[..., across], rows + flow[..., up]):
        levels = np.arange(np.floor(position.min() / step) * step, position.max() + step, step)
        axes.contour(position, levels=levels, colors=SKY_BLUE, linewidths=0.5)
    _mark_folded(axes, plane, determinant)


def draw_determinant(axes: Axes, plane: Plane, determinant: Tensor) -> None:
    """Draw the Jacobian determinant on a logarithmic scale with 1 (no change of volume) in the middle."""
    exponent = determinant.clamp(min=1e-3).log2()
    plane.show(axes, plane.cut(exponent)[..., 0], DIVERGING, (SMALLEST_SHOWN, LARGEST_SHOWN))
    _mark_folded(axes, plane, determinant)


def _mark_folded(axes: Axes, plane: Plane, determinant: Tensor) -> None:
    folded = plane.cut(determinant <= 0)[..., 0]
    layer = np.zeros((*folded.shape, 4))
    layer[folded] = (*to_rgb(FOLDED), 1.0)
    plane.show(axes, layer)
