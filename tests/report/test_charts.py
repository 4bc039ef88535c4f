"""Charts of sets of pairs, on tables with known numbers."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from regcascade.report.figures.charts import (
    OF_STRUCTURES,
    against_cascades,
    against_initial,
    extreme_cases,
    label_boxes,
)
from regcascade.report.figures.quality import UNREGISTERED, has_initial, measure_of, worst_and_best, worst_first
from regcascade.report.figures.style import MARKERS, POINTS, SERIES, WIDTH, series_style, shortened
from regcascade.report.runs.names import What
from regcascade.report.runs.run import Run


def table(gain: float, pairs: int = 24) -> pd.DataFrame:
    """Pairs whose Dice before runs evenly from 0.2 to 0.8; the spleen is missing in the first."""
    before = np.linspace(0.2, 0.8, pairs)
    columns = {
        "dice_liver": before + gain + 0.05,
        "dice_spleen": np.r_[np.nan, before[1:] + gain - 0.05],
        "dice_mean": before + gain,
        "cc": before,
    }
    columns |= {f"{name}_before": values - gain for name, values in list(columns.items())}
    index = pd.MultiIndex.from_tuples([(f"fixed_{k:02d}", f"moving_{k:02d}") for k in range(pairs)])
    return pd.DataFrame(columns, index=index)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return {"one": table(0.0), "other": table(0.1)}


def test_boxes_are_of_every_label_and_method_and_of_before(tables):
    figure = label_boxes(tables)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mean", "liver", "spleen"]
    assert legend(figure) == [UNREGISTERED, "one", "other"]
    boxes = {round(np.mean(patch.get_path().vertices[:4, 1])): patch for patch in axes.patches}
    assert sorted(boxes) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    colours = [boxes[place].get_facecolor() for place in (0, 1, 2)]
    assert colours == [to_rgba(colour, 0.6) for colour in ("white", *SERIES[:2])]
    quartiles = boxes[6].get_path().vertices[:, 0]  # of the second method's liver
    np.testing.assert_allclose([quartiles.min(), quartiles.max()], [0.35 + 0.15, 0.65 + 0.15], atol=1e-9)


def test_a_label_that_no_pair_of_a_method_has_leaves_its_box_out(tables):
    tables["other"]["dice_spleen"] = math.nan
    assert len(label_boxes(tables).axes[0].patches) == 8


def test_after_is_drawn_over_before_with_means_of_groups(tables):
    figure = against_initial(tables)
    axes = figure.axes[0]
    dots = axes.collections[1].get_offsets()
    np.testing.assert_allclose(dots[:, 1], dots[:, 0] + 0.1)
    lines = [line for line in axes.lines if line.get_marker() in MARKERS]
    assert [len(line.get_xdata()) for line in lines] == [4, 4]  # 24 pairs, 6 in a group
    np.testing.assert_allclose(lines[0].get_xdata()[0], np.linspace(0.2, 0.8, 24)[:6].mean())
    assert legend(figure) == ["one", "other", "no change"]


def test_pairs_without_the_measure_are_left_out_and_few_have_no_means():
    few = table(0.1, pairs=5)
    few.iloc[2] = math.nan
    axes = against_initial({"few": few}).axes[0]
    assert len(axes.collections[0].get_offsets()) == 4
    assert not [line for line in axes.lines if line.get_marker() in MARKERS]


def run(n: int, r: int = 1, dice: float = 0.5, kind: str = "VTN CR", **measures: float) -> Run:
    """A run of two pairs, which differ by 0.2 in every measure."""
    pairs = pd.DataFrame({name: [mean - 0.1, mean + 0.1] for name, mean in {"dice_mean": dice, **measures}.items()})
    return Run(f"{n} {r} {dice}", pairs, math.nan, math.nan, "nearest", what=What(kind, n, r))


def test_dice_is_drawn_against_n_and_r():
    runs = [run(n, r, 0.5 + 0.1 * n + 0.01 * r) for n in (1, 2, 3) for r in (1, 2)]
    figure = against_cascades(runs)
    against_n, against_r = figure.axes
    joined = [line for line in against_n.lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose([line.get_xdata() for line in joined], [[1, 2, 3]] * 2, rtol=0.02)
    np.testing.assert_allclose(joined[1].get_ydata(), [0.62, 0.72, 0.82])
    assert [text.get_text() for text in against_r.get_legend().get_texts()] == [f"VTN CR, n = {n}" for n in (1, 2, 3)]
    assert against_n.get_xscale() == "log"
    assert len(against_cascades([one for one in runs if one.what.r == 1]).axes) == 1


def test_runs_of_one_setting_are_joined_by_their_mean():
    line, marks = against_cascades([run(1, dice=0.4), run(1, dice=0.6), run(2, dice=0.7)]).axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.7])
    np.testing.assert_allclose(marks.get_ydata(), [0.4, 0.6, 0.7])


def test_each_structure_and_the_landmark_distance_are_drawn_against_n():
    runs = [run(n, dice_left=0.1 * n, dice_right=0.2 * n, landmark_distance_mm=5.0 - n) for n in (1, 2)]
    figure = against_cascades(runs)
    dice, landmarks = figure.axes
    assert [dice.get_ylabel(), landmarks.get_ylabel()] == ["Dice", "Landmark distance [mm]"]
    structures = sorted(float(line.get_ydata()[0]) for line in dice.lines if line.get_marker() in OF_STRUCTURES)
    np.testing.assert_allclose(structures, [0.1, 0.2, 0.2, 0.4])
    assert legend(figure) == ["left", "right"]
    np.testing.assert_allclose(landmarks.lines[0].get_ydata(), [4, 3])
    quartiles = [drawn.get_segments()[0][:, 1] for drawn in landmarks.collections]
    np.testing.assert_allclose(quartiles, [[3.95, 4.05], [2.95, 3.05]])
    many = [run(n, **{f"dice_{k}": 0.5 for k in range(9)}) for n in (1, 2)]
    assert legend(against_cascades(many)) == ["each of 9 structures"]


def test_settings_that_do_not_vary_are_an_error():
    with pytest.raises(ValueError, match="differ in n or r"):
        against_cascades([run(1)])


def test_the_worst_and_best_cases_are_those_by_the_mean_of_the_methods(tables):
    tables["other"].loc[("fixed_05", "moving_05"), "dice_mean"] = 0.0
    figure = extreme_cases(tables, count=2)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "moving_05 → fixed_05",
        "moving_00 → fixed_00",
        "moving_22 → fixed_22",
        "moving_23 → fixed_23",
    ]
    assert legend(figure) == [UNREGISTERED, "one", "other"]
    assert axes.yaxis_inverted()
    ring = axes.lines[0]
    first = tables["one"].loc[("fixed_05", "moving_05")]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (first["dice_mean_before"], 0)


def test_pairs_that_have_the_measure_only_before_or_only_after_are_left_out_of_the_change():
    split = pd.DataFrame({"dice_mean": [0.5, math.nan], "dice_mean_before": [math.nan, 0.4]})
    assert not has_initial({"one": split})
    with pytest.raises(ValueError, match="No pair has both"):
        against_initial({"one": split})
    whole = pd.DataFrame({"dice_mean": [0.5], "dice_mean_before": [0.4]})
    assert has_initial({"one": split, "other": whole})
    assert len(against_initial({"one": split, "other": whole}).axes[0].collections) == 1


def test_no_case_is_both_worst_and_best():
    assert worst_and_best(list("abcde"), 2) == (["a", "b"], ["d", "e"])
    assert worst_and_best(list("abc"), 2) == (["a", "b"], ["c"])
    assert worst_and_best(list("a"), 2) == (["a"], [])
    assert worst_and_best(list("abc"), 0) == ([], [])


def test_quality_leaves_out_what_has_no_measure_and_orders_the_rest():
    frame = pd.DataFrame({"dice_mean": [0.5, math.nan, 0.1]}, index=["a", "b", "c"])
    assert list(worst_first({"one": frame})) == ["c", "a"]


def test_scans_without_labels_are_judged_by_cc():
    without = table(0.1)[["cc", "cc_before"]].assign(dice_mean=math.nan)
    assert measure_of({"one": without}) == "cc"
    assert [label.get_text() for label in label_boxes({"one": without}).axes[0].get_yticklabels()] == ["CC"]
    assert against_initial({"one": without}).axes[0].get_ylabel() == "CC after registration"
    with pytest.raises(ValueError, match="one have neither Dice nor CC"):
        measure_of({"one": without.drop(columns="cc")})


def test_a_table_without_measures_before_has_none_drawn(tables):
    only = {name: frame[["dice_mean", "dice_liver"]] for name, frame in tables.items()}
    assert legend(label_boxes(only)) == ["one", "other"]
    assert legend(extreme_cases(only)) == ["one", "other"]
    with pytest.raises(ValueError, match="dice_mean_before"):
        against_initial(only)


def test_of_few_pairs_whiskers_reach_to_the_lowest_and_highest_and_all_cases_are_shown():
    few = {"one": table(0.1, pairs=5)}
    figure = label_boxes(few)
    assert "whiskers: all pairs" in figure.axes[0].get_xlabel()
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "." and len(line.get_xdata())]
    assert "5 to 95 %" in label_boxes({"one": table(0.1, pairs=20)}).axes[0].get_xlabel()
    cases = extreme_cases(few).axes[0]
    assert "all pairs" in cases.get_xlabel()
    low, high = sorted(cases.get_ylim())
    assert low < 0 and high > 4  # no mark is cut off


def test_one_pair_can_be_drawn():
    one = {"one": table(0.1, pairs=1)}
    for draw in (label_boxes, against_initial, extreme_cases):
        draw(one).draw_without_rendering()


@pytest.mark.parametrize("draw", [label_boxes, against_initial, extreme_cases])
def test_letters_can_be_read_at_the_width_of_print(draw, tables):
    tables["a method whose name is longer than any legend has the room to write it out"] = table(0.2)
    figure = draw(tables)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == WIDTH
    letters = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")) if text.get_text()]
    assert min(text.get_fontsize() for text in letters) >= POINTS
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= 0
    assert drawn.x1 <= WIDTH


def test_names_keep_both_ends_and_series_differ():
    assert shortened("case_1", 6) == "case_1"
    assert shortened("a_long_name_of_case_17", 9) == "a_lo…e_17"
    assert len({series_style(number) for number in range(56)}) == 56


def test_labels_are_those_of_any_table(tables):
    tables["other"]["dice_new"] = tables["other"].pop("dice_spleen")
    labels = label_boxes(tables).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["mean", "liver", "spleen", "new"]
