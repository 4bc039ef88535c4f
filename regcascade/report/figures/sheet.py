"""The layout of a page of slices: rows of six cells, all slices at one scale."""

from matplotlib.axes import Axes

from regcascade.report.figures.panels import View
from regcascade.report.figures.style import POINTS, WIDTH, empty_figure

# In inches.
SIDE, _BETWEEN_HALVES, _BETWEEN_PLANES = 0.08, 0.2, 0.04
_HEAD, _TITLE, _FOOT = 0.6, 0.19, 0.08
_LOWEST_ROW, _HIGHEST_ROW = 0.5, 2.2


class Sheet:
    """Rows of six cells: three planes of one thing in the left half, and of another in the right half.

    All slices are drawn to one scale, as large as fits. Positions are in inches from the lower left corner.

    Args:
        views: the three planes.
        size: sides of the volume in voxels.
        rows: how many.
    """

    def __init__(self, views: list[View], size: tuple[int, ...], rows: int) -> None:
        self.views = views
        sides = [side * step for side, step in zip(size, views[0].spacing, strict=True)]
        across, up = zip(*(tuple(sides[axis] for axis in view.plane.axes) for view in views), strict=True)
        self.half = (WIDTH - 2 * SIDE - _BETWEEN_HALVES) / 2
        scale = min((self.half - 2 * _BETWEEN_PLANES) / sum(across), _HIGHEST_ROW / max(up))
        self.widths = [scale * width for width in across]
        self.row_height = max(scale * max(up), _LOWEST_ROW)
        self.height = _HEAD + rows * (_TITLE + self.row_height) + _FOOT
        self.figure = empty_figure(self.height)

    def corner(self, row: int, right: bool) -> tuple[float, float]:
        """The left and the bottom of half a row; the first row is 0."""
        left = SIDE + (self.half + _BETWEEN_HALVES if right else 0)
        return left, self.height - _HEAD - (row + 1) * (_TITLE + self.row_height)

    def cells(self, row: int, right: bool, text: str) -> list[tuple[Axes, View]]:
        """The three cells of half a row, under a title."""
        left, bottom = self.corner(row, right)
        self.write(left, bottom + self.row_height + 0.04, text)
        cells = []
        for view, width in zip(self.views, self.widths, strict=True):
            axes = self.add_axes(left, bottom, width, self.row_height)
            axes.set(xticks=[], yticks=[], label=text)
            axes.spines[:].set(visible=True, color="0.8", linewidth=0.5)
            cells.append((axes, view))
            left += width + _BETWEEN_PLANES
        return cells

    def write(self, left: float, bottom: float, text: str, size: int = POINTS, anchor: str = "baseline") -> None:
        """Write a text."""
        self.figure.text(left / WIDTH, bottom / self.height, text, fontsize=size, va=anchor)

    def add_axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Add axes."""
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))
