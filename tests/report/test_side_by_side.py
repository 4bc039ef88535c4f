"""Several runs of one pair beside each other, and the filled regions of labels."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from regcascade.report.figures.panels import REGIONS, Plane, draw_labels
from regcascade.report.figures.side_by_side import side_by_side


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_regions_are_filled_by_which_labels_are_there():
    fixed, moved = torch.zeros(2, 1, 1, 4, 2, 2, dtype=torch.long)
    fixed[0, 0, :3] = torch.tensor([1, 1, 2])[:, None, None]
    moved[0, 0, :] = torch.tensor([1, 0, 1, 2])[:, None, None]
    axes = Figure().subplots()
    draw_labels(axes, Plane(2, 0), torch.ones(1, 1, 4, 2, 2), fixed, moved)
    layer = np.asarray(axes.images[1].get_array())
    wanted = [REGIONS[name] for name in ("in both", "fixed only", "other structure", "moving only")]
    np.testing.assert_allclose(layer[0], [to_rgba(colour, 0.5) for colour in wanted])


@pytest.mark.parametrize("labels", [True, False])
def test_runs_have_a_column_each_beside_the_fixed_and_the_moving_image(registered, labels):
    results = {name: registered(stages=1, labels=labels) for name in ("one", "two")}
    figure = side_by_side(results)
    rows = 5 if labels else 3
    assert len(figure.axes) == 4 * rows
    shown = titles(figure)
    assert shown[:2] == ["fixed scan_1", "moving scan_2\n" + shown[1].split("\n", 1)[1]]
    assert shown[2].startswith("one\nDice 1.000\nCC 1.000" if labels else "one\nCC 1.000")
    assert shown[-1] == "0.000 % folded"
    before, after = (np.asarray(figure.axes[place].images[0].get_array()) for place in (1, 2))
    np.testing.assert_allclose(after, np.asarray(figure.axes[0].images[0].get_array()), atol=1e-5)
    assert not np.allclose(before, after)


def test_many_runs_go_on_below(registered):
    figure = side_by_side({f"run {number}": registered(stages=1) for number in range(5)})
    assert len(figure.axes) == 6 * 5 * 2
    assert any(title.startswith("run 4\n") for title in titles(figure))
