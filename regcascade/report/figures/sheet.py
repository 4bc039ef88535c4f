"""Layout of a page of slices: rows of six cells, all slices at one scale."""

from matplotlib.axes import Axes

from regcascade.report.figures.panels import Plane
from regcascade.report.figures.style import POINTS, WIDTH, empty_figure

# In inches.
SIDE, _BETWEEN_HALVES, _BETWEEN_PLANES = 0.08, 0.2, 0.04
_HEAD, _TITLE, _FOOT = 0.6, 0.19, 0.08
_LOWEST_ROW, _HIGHEST_ROW = 0.75, 2.2


class Sheet:
    """Rows of six cells: three planes of one thing in the left half, and of another in the right half.

    The slices of a volume of `size` voxels are as large as fits. Positions are in inches from the lower left corner.
    """

    def __init__(self, planes: list[Plane], size: tuple[int, ...], rows: int) -> None:
        self.planes = planes
        sides = [side * step for side, step in zip(size, planes[0].spacing, strict=True)]
        across, up = zip(*(tuple(sides[axis] for axis in plane.axes) for plane in planes), strict=True)
        self.half = (WIDTH - 2 * SIDE - _BETWEEN_HALVES) / 2
        scale = min((self.half - 2 * _BETWEEN_PLANES) / sum(across), _HIGHEST_ROW / max(up))
        self.widths = [scale * width for width in across]
        self.row_height = max(scale * max(up), _LOWEST_ROW)
        self.height = _HEAD + rows * (_TITLE + self.row_height) + _FOOT
        self.figure = empty_figure(self.height, layout=None)

    def corner(self, row: int, right: bool) -> tuple[float, float]:
        """The left and the bottom of half a row."""
        left = SIDE + (self.half + _BETWEEN_HALVES if right else 0)
        return left, self.height - _HEAD - (row + 1) * (_TITLE + self.row_height)

    def cells(self, row: int, right: bool, text: str) -> list[tuple[Axes, Plane]]:
        """Add the three cells of half a row, under a title."""
        left, bottom = self.corner(row, right)
        self.write(left, bottom + self.row_height + 0.04, text)
        cells = []
        for plane, width in zip(self.planes, self.widths, strict=True):
            axes = self.add_axes(left, bottom, width, self.row_height)
            axes.set(xticks=[], yticks=[], label=text)
            axes.spines[:].set(visible=True, color="0.8", linewidth=0.5)
            cells.append((axes, plane))
            left += width + _BETWEEN_PLANES
        return cells

    def write(self, left: float, bottom: float, text: str, size: int = POINTS, anchor: str = "baseline") -> None:
        """Write a text."""
        self.figure.text(left / WIDTH, bottom / self.height, text, fontsize=size, va=anchor)

    def add_axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Add axes."""
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))
