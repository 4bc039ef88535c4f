"""All prepared cases at a glance, to find by eye the ones that went wrong."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from regcascade.data.case import Case
from regcascade.report.figures.style import write_figure

COLUMNS, ROWS = 8, 8
_INCHES, _DPI = 1.6, 100


def write_contact_sheets(cases: Iterable[Case], folder: Path) -> list[Path]:
    """Write `contact_sheet_<k>.png`, 64 cases a page: the middle plane across each axis, side by side, and the name.

    The planes go through the middle of the labels where there are labels, whose outlines are drawn. Older contact
    sheets in the folder are removed.
    """
    for old in folder.glob("contact_sheet_*.png"):
        old.unlink()
    files: list[Path] = []
    remaining = iter(cases)
    while page := list(islice(remaining, COLUMNS * ROWS)):
        files.append(write_figure(_page(page), folder / f"contact_sheet_{len(files) + 1:03d}.png"))
    return files


def _page(cases: list[Case]) -> Figure:
    columns, rows = min(COLUMNS, len(cases)), -(-len(cases) // COLUMNS)
    size = (2 * _INCHES * columns, (_INCHES * 0.85) * rows + 0.1)
    figure = Figure(size, _DPI, facecolor="black", layout="constrained")
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

    def planes(volume: np.ndarray) -> np.ndarray:
        strips = [np.take(volume, middle[axis], axis).T[::-1] for axis in (2, 1, 0)]
        padded = [np.pad(strip, ((0, max(image.shape[1:]) - strip.shape[0]), (0, 2))) for strip in strips]
        return np.concatenate(padded, axis=1)

    return planes(image), planes(labelled).astype(float)
