"""All prepared cases at a glance, to find by eye the ones that went wrong."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from regcascade.data.case import Case
from regcascade.utils.files import written_whole

COLUMNS, ROWS = 8, 8
_INCHES, _DPI = 1.6, 100


def write_contact_sheets(cases: Iterable[Case], folder: Path) -> list[Path]:
    """Write `contact_sheet_<k>.png`, 64 cases a page: the middle plane across each axis, side by side, and the name.

    The planes go through the middle of the labels where there are labels, whose outlines are drawn.

    Returns:
        The files, in order.
    """
    for old in folder.glob("contact_sheet_*.png"):
        old.unlink()
    files: list[Path] = []
    remaining: Iterator[Case] = iter(cases)
    while page := list(islice(remaining, COLUMNS * ROWS)):
        path = folder / f"contact_sheet_{len(files) + 1:03d}.png"
        with written_whole(path) as temporary:
            _page(page).savefig(temporary, format="png", dpi=_DPI)
        files.append(path)
    return files


def _page(cases: list[Case]) -> Figure:
    columns, rows = min(COLUMNS, len(cases)), -(-len(cases) // COLUMNS)
    figure = Figure((2 * _INCHES * columns, (_INCHES * 0.85) * rows + 0.1), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, case in zip(axes, cases, strict=False):
        strip, outline = _strip(case)
        axis.imshow(strip, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if outline.any():
            axis.contour(outline, levels=[0.5], colors="#e69f00", linewidths=0.6)
        axis.set_title(case.name, color="white", fontsize=6, pad=2)
    return figure


def _strip(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The three planes side by side, the last array axis upwards, and whether a voxel is labelled."""
    image = case.image[0].numpy()
    labelled = np.zeros(image.shape, bool) if case.labels is None else case.labels[0].numpy() > 0
    middle = [int(found.mean()) for found in np.nonzero(labelled)] if labelled.any() else [s // 2 for s in image.shape]
    height = max(image.shape[1:])

    def planes(volume: np.ndarray) -> np.ndarray:
        strips = [np.take(volume, middle[axis], axis).T[::-1] for axis in (2, 1, 0)]
        padded = [np.pad(strip, ((0, max(height, image.shape[2]) - strip.shape[0]), (0, 2))) for strip in strips]
        return np.concatenate(padded, axis=1)

    return planes(image), planes(labelled).astype(float)
