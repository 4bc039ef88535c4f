import re
import sys

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from regcascade.report.figures.panels import FOLDED, OF_FIXED, OF_MOVING, Plane, flow_colours, outlines, planes_of
from regcascade.report.figures.registration import as_image, chosen_stages, registration_figure
from regcascade.report.figures.style import POINTS


def titles(figure: Figure) -> list[str]:
    """What the page shows: the title of each half row, once."""
    return list(dict.fromkeys(axes.get_label() for axes in figure.axes if axes.get_label()))


def cells(figure: Figure, beginning: str) -> list:
    """The three cells under the title that begins so."""
    return [axes for axes in figure.axes if axes.get_label().startswith(beginning)]


def test_a_slice_lies_first_axis_right_second_axis_up():
    volume = torch.arange(2 * 3 * 4).view(1, 1, 2, 3, 4)
    cut = Plane(1, 2).cut(volume)
    assert cut.shape == (4, 2, 1)
    assert cut[3, 1, 0] == volume[0, 0, 1, 2, 3]
    assert Plane(1, 2).axes == (0, 2)


def test_pixels_have_the_proportions_of_the_voxels():
    axes = Figure().subplots()
    Plane(0, 0, (9.0, 2.0, 5.0)).show(axes, np.zeros((4, 3)))
    assert axes.get_aspect() == 2.5


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


def test_flow_colours_take_absolute_components_away_from_white():
    flow = torch.zeros(1, 3, 5, 6, 7)
    flow[0, :, 1, 2, 3] = torch.tensor([1.0, -4.0, 2.0])
    colours = flow_colours(flow, Plane(2, 3), 4.0)
    assert colours.shape == (6, 5, 3)
    np.testing.assert_allclose(colours[2, 1], [0.75, 0.0, 0.5])  # row y, column x
    assert (np.delete(colours.reshape(-1, 3), 2 * 5 + 1, axis=0) == 1).all()
    assert (flow_colours(torch.zeros_like(flow), Plane(0, 0), 0.0) == 1).all()


def test_outlines_are_the_edges_of_pixels_where_labels_change():
    labels = np.zeros((4, 5), int)
    labels[1, 2], labels[1, 3] = 1, 2
    lines = {tuple(map(tuple, line)) for line in outlines(labels)}
    upright = {((x, 0.5), (x, 1.5)) for x in (1.5, 2.5, 3.5)}  # between the two labels, too
    level = {((x, y), (x + 1, y)) for x in (1.5, 2.5) for y in (0.5, 1.5)}
    assert lines == upright | level
    assert len(outlines(np.ones((3, 3), int))) == 0


def test_few_stages_are_all_shown_and_many_are_thinned():
    assert chosen_stages(6) == [0, 1, 2, 3, 4, 5]
    assert chosen_stages(11) == [0, 2, 4, 6, 8, 10]
    thinned = chosen_stages(20)
    assert len(thinned) == 6
    assert (thinned[0], thinned[-1]) == (0, 19)


def test_a_page_shows_every_stage_in_three_planes_and_the_labels_before_and_after(registered):
    batch, registration = registered(stages=2, affine=True)
    figure = registration_figure(batch, registration, index=1)
    shown = titles(figure)
    assert {re.sub(r", (CC|full|Dice).*", "", title) for title in shown} == {
        "fixed", "moving", "after affine stage", "after stage 1", "after stage 2",
        "labels before", "labels after", "flow of affine stage", "flow of stage 1", "flow of stage 2", "total flow",
        "moving grid, 0.000 % folded", "Jacobian determinant", "colour bar",
    }  # fmt: skip
    assert all(len(cells(figure, title)) == 3 for title in shown if title != "colour bar")
    assert "flow of stage 1, full colour: 1.00 voxels" in shown
    assert "total flow, full colour: 2.00 voxels" in shown
    assert "labels after, Dice 1.000" in shown
    before = next(title for title in shown if title.startswith("labels before"))
    assert float(before[-5:]) == pytest.approx(7 / 9, abs=1e-3)
    assert "scan_4 onto scan_3" in [text.get_text() for text in figure.texts]


def test_every_cell_shows_its_plane_through_the_labels(registered):
    batch, registration = registered(stages=1)
    batch["fixed"][0] = torch.rand(1, 17, 14, 21)
    planes = planes_of(batch["fixed"][:1], batch["fixed_labels"][:1])
    assert {plane.normal: plane.index for plane in planes} == {0: 7, 1: 6, 2: 10}  # the middle of the box
    figure = registration_figure(batch, registration)
    for axes, plane in zip(cells(figure, "fixed"), planes, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), plane.cut(batch["fixed"][:1])[..., 0])
        assert axes.images[0].origin == "lower"
    text = next(text.get_text() for text in figure.texts if text.get_text().startswith("Planes"))
    assert "x = 7 (y →, z ↑)" in text


def test_a_shift_along_one_axis_has_its_colour_where_it_is(registered):
    batch, registration = registered(stages=1)
    flow = registration.stages[0].flow
    flow.zero_()
    flow[:, 1, 5, 6, 10] = -3.0  # voxel x=5, y=6, z=10, along y
    figure = registration_figure(batch, registration)
    across_z = next(
        axes
        for axes, plane in zip(
            cells(figure, "flow of stage 1"), planes_of(batch["fixed"][:1], batch["fixed_labels"][:1]), strict=True
        )
        if plane == Plane(2, 10)
    )
    colours = across_z.images[0].get_array()
    np.testing.assert_array_equal(colours[6, 5], [1, 0, 1])  # magenta, at row y and column x
    assert (colours == 1).sum() == colours.size - 1


def test_the_moved_image_and_outlines_are_drawn_where_the_fixed_ones_are(registered):
    batch, registration = registered(stages=1)
    figure = registration_figure(batch, registration)
    for fixed, moved in zip(cells(figure, "fixed"), cells(figure, "after stage 1"), strict=True):
        np.testing.assert_allclose(moved.images[0].get_array(), fixed.images[0].get_array(), atol=1e-5)

    def lines_in(axes) -> dict[str, np.ndarray]:
        drawn = [drawn for drawn in axes.collections if isinstance(drawn, LineCollection)]
        return {
            colour: np.array(part.get_segments()) for colour, part in zip((OF_FIXED, OF_MOVING), drawn, strict=True)
        }

    plane = planes_of(batch["fixed"][:1], batch["fixed_labels"][:1])[0]
    across = plane.axes[0]
    low, high = [(3, 12), (4, 9), (6, 16)][across]
    for beginning, shift in (("labels before", 2 if across == 0 else 0), ("labels after", 0)):
        lines = lines_in(cells(figure, beginning)[0])
        for colour, by in ((OF_FIXED, 0), (OF_MOVING, shift)):
            ends = lines[colour][..., 0]
            assert (ends.min(), ends.max()) == (low + by - 0.5, high + by - 0.5)


def test_every_slice_has_the_proportions_of_the_scan_at_one_scale(registered):
    figure = registration_figure(*registered(stages=1))
    sides = {"x": 17 * 1.0, "y": 14 * 1.0, "z": 21 * 3.0}
    figure.draw_without_rendering()
    scales = []
    for axes in figure.axes:
        if axes.get_label() == "colour bar":
            continue
        place = axes.get_window_extent()
        drawn = place.height / place.width
        fits = [(a, b) for a in sides.values() for b in sides.values() if abs(drawn - a / b) < 0.02 * drawn]
        assert fits, axes.get_label()
        scales.append(place.height / fits[0][0])
    assert max(scales) < 1.02 * min(scales)


def test_a_page_has_the_width_of_print_and_letters_that_can_be_read(registered):
    figure = registration_figure(*registered(stages=1))
    assert figure.get_figwidth() * 25.4 == pytest.approx(180)
    letters = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")) if text.get_text()]
    assert letters
    assert min(text.get_fontsize() for text in letters) >= POINTS
    figure.draw_without_rendering()
    page = figure.get_window_extent()
    assert all(text.get_window_extent().x1 <= page.x1 for text in figure.texts)


def test_without_labels_the_differences_are_shown(registered):
    shown = titles(registration_figure(*registered(stages=1, labels=False)))
    assert {"difference before", "difference after"} < set(shown)
    assert not any("labels" in title for title in shown)


def test_empty_label_maps_have_no_dice(registered):
    batch, registration = registered(stages=1)
    batch["fixed_labels"].zero_()
    batch["moving_labels"].zero_()
    assert "labels after, none there" in titles(registration_figure(batch, registration))


def test_a_long_cascade_is_thinned_and_the_page_says_so(registered):
    batch, registration = registered(stages=7)
    figure = registration_figure(batch, registration)
    shown = [title for title in titles(figure) if title.startswith("after stage")]
    assert len(shown) == 6
    assert shown[-1].startswith("after stage 7")
    assert any("6 of 7 stages" in text.get_text() for text in figure.texts)


def test_a_folded_voxel_is_counted_and_marked_in_the_grid_and_the_determinant(registered):
    batch, registration = registered(stages=1)
    registration.stages[0].total[:, 0, 8, 6, 10] = -4.0  # its neighbour at x=7 is mapped beyond it
    figure = registration_figure(batch, registration)
    planes = planes_of(batch["fixed"][:1], batch["fixed_labels"][:1])
    place = [plane.normal for plane in planes].index(2)
    for beginning in ("moving grid", "Jacobian determinant"):
        marks = cells(figure, beginning)[place].images[-1].get_array()
        assert [tuple(pixel) for pixel in np.argwhere(marks[..., 3] > 0)] == [(6, 7)]  # row y, column x
        np.testing.assert_allclose(marks[6, 7, :3], to_rgb(FOLDED))
    percent = float(re.search(r"([\d.]+) %", cells(figure, "moving grid")[0].get_label())[1])
    assert percent == pytest.approx(100 / (16 * 13 * 20), abs=1e-3)


def test_an_unchanged_volume_is_in_the_middle_of_the_determinants_colours(registered):
    figure = registration_figure(*registered(stages=1))
    for axes in cells(figure, "Jacobian determinant"):
        image = axes.images[0]
        assert (np.asarray(image.get_array()) == 0).all()  # of log2
        assert image.norm(0.0) == 0.5


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
