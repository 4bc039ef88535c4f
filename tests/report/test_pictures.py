import re
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from regcascade.report.panels import BOTH, ONLY_FIXED, ONLY_MOVED, OTHER, flow_colours, overlap_areas
from regcascade.report.pictures import as_image, chosen_stages, registration_figure
from regcascade.report.planes import Plane, planes_of


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def axes_named(figure: Figure, beginning: str):
    return next(axes for axes in figure.axes if axes.get_title().startswith(beginning))


def test_a_slice_lies_first_axis_right_second_axis_up():
    volume = torch.arange(2 * 3 * 4).view(1, 1, 2, 3, 4)
    cut = Plane(1, 2).cut(volume)
    assert cut.shape == (4, 2, 1)
    assert cut[3, 1, 0] == volume[0, 0, 1, 2, 3]
    assert Plane(1, 2).axes == (0, 2)


def test_pixels_have_the_proportions_of_the_voxels():
    assert Plane(0, 0).aspect((9.0, 2.0, 5.0)) == 2.5
    assert Plane(2, 0).proportion((10, 30, 7), (1.0, 2.0, 9.0)) == 6.0


def test_planes_go_through_the_labels_and_the_fullest_comes_first():
    labels = torch.zeros(1, 1, 17, 14, 21, dtype=torch.long)
    labels[:, :, 2:13, 3:6, 12:19] = 1
    planes = planes_of(torch.zeros(1, 1, 17, 14, 21), labels)
    assert {plane.normal: plane.index for plane in planes} == {0: 7, 1: 4, 2: 15}
    assert planes[0].normal == 1  # 11 x 7 voxels of it are labelled


@pytest.mark.parametrize("labels", [None, torch.zeros(1, 1, 17, 14, 21, dtype=torch.long)])
def test_planes_without_labels_go_through_the_middle(labels):
    image = torch.zeros(1, 1, 17, 14, 21)
    image[:, :, 8] = torch.rand(14, 21)
    planes = planes_of(image, labels)
    assert {plane.normal: plane.index for plane in planes} == {0: 8, 1: 7, 2: 10}
    assert planes[0].normal == 0


def test_flow_colours_are_absolute_components_over_the_largest():
    flow = torch.zeros(1, 3, 5, 6, 7)
    flow[0, :, 1, 2, 3] = torch.tensor([1.0, -4.0, 2.0])
    flow[0, 0, 1, 2, 4] = 9.0  # in another slice
    colours, largest = flow_colours(flow, Plane(2, 3))
    assert largest == 4.0
    np.testing.assert_allclose(colours[2, 1], [0.25, 1.0, 0.5])
    assert flow_colours(torch.zeros_like(flow), Plane(0, 0))[1] == 0.0


def test_overlap_areas_are_disjoint_and_cover_every_label():
    fixed, moved = np.array([[0, 1, 1, 0, 2]]), np.array([[0, 1, 0, 3, 3]])
    areas = overlap_areas(fixed, moved)
    assert {colour: np.flatnonzero(area).tolist() for colour, area in areas.items()} == {
        BOTH: [1],
        ONLY_FIXED: [2],
        ONLY_MOVED: [3],
        OTHER: [4],
    }


def test_few_stages_are_all_shown_and_many_are_thinned():
    assert chosen_stages(6) == [0, 1, 2, 3, 4, 5]
    assert chosen_stages(11) == [0, 2, 4, 6, 8, 10]
    thinned = chosen_stages(20)
    assert len(thinned) == 6
    assert (thinned[0], thinned[-1]) == (0, 19)


def test_a_page_shows_every_stage_and_both_overlaps(registered):
    batch, registration = registered(stages=2, affine=True)
    figure = registration_figure(batch, registration, index=1)
    shown = titles(figure)
    assert [re.sub(r"\n.*", "", title) for title in shown[:5]] == [
        "fixed",
        "moving",
        "after affine",
        "after stage 1",
        "after stage 2",
    ]
    assert shown.count("own flow, to 1.00 voxels") == 2
    assert "total flow, to 2.00 voxels" in shown
    assert "after: Dice 1.000" in shown
    assert float(next(title for title in shown if title.startswith("before"))[-5:]) == pytest.approx(7 / 9, abs=1e-3)
    assert "moving grid, 0.000 % folded" in shown
    assert figure.texts[0].get_text() == "scan_4 onto scan_3"


def test_the_moved_image_is_drawn_where_the_fixed_one_is(registered):
    batch, registration = registered(stages=1)
    figure = registration_figure(batch, registration)
    fixed, moved = (axes_named(figure, name).images[0] for name in ("fixed", "after stage 1"))
    np.testing.assert_allclose(moved.get_array(), fixed.get_array(), atol=1e-5)
    assert fixed.origin == "lower"


def test_every_slice_has_the_proportions_of_the_scan(registered):
    figure = registration_figure(*registered())
    sides = {17 * 1.0, 14 * 1.0, 21 * 3.0}
    figure.draw_without_rendering()
    for axes in figure.axes:
        place = axes.get_window_extent()
        drawn = place.height / place.width
        assert any(abs(drawn - a / b) < 0.02 * drawn for a in sides for b in sides), axes.get_title()


def test_without_labels_the_differences_are_shown(registered):
    shown = titles(registration_figure(*registered(labels=False)))
    assert "before: difference to fixed" in shown
    assert not any("Dice" in title for title in shown)


def test_a_long_cascade_is_thinned_and_the_page_says_so(registered):
    batch, registration = registered(stages=10)
    figure = registration_figure(batch, registration)
    shown = [title for title in titles(figure) if title.startswith("after stage")]
    assert len(shown) == 6
    assert shown[-1].startswith("after stage 10")
    assert "6 of 10 stages" in figure.texts[0].get_text()


def test_folded_voxels_are_counted_and_painted(registered):
    batch, registration = registered(stages=1)
    registration.stages[0].total[:, 0, 7, 6, 11] = -4.0
    figure = registration_figure(batch, registration)
    grid = axes_named(figure, "moving grid")
    assert float(re.search(r"([\d.]+) %", grid.get_title())[1]) > 0
    assert grid.images[-1].get_array()[..., 3].sum() > 0


def test_a_page_can_be_an_image_and_needs_no_window(registered):
    image = as_image(registration_figure(*registered(stages=1)))
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.std() > 0
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_gradients_and_half_precision_are_no_obstacle(registered):
    batch, registration = registered(stages=1)
    registration.stages[0].total.requires_grad_()
    batch["fixed"] = batch["fixed"].half()
    registration_figure(batch, registration)


def test_a_pair_that_is_not_there_is_an_error(registered):
    with pytest.raises(ValueError, match="no pair 2; this batch has 2"):
        registration_figure(*registered(), index=2)
