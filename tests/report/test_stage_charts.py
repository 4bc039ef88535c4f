"""The chart of measures over stages."""

import numpy as np
import pytest
from phantom_runs import write_run, write_stages

from regcascade.report.figures.stage_charts import against_stages, stages_of


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def test_lines_are_means_and_bands_the_middle_half(folder):
    table = write_stages(folder, 3)
    panels = against_stages(stages_of([folder], ["run"])).axes
    assert [axes.get_ylabel() for axes in panels] == ["Dice", "CC", "Folding [%]", "Seconds"]
    for axes, column in zip(panels, ("dice_mean", "cc", "folding_percent", "seconds"), strict=True):
        values = [table.loc[table["step"] == step, column] for step in range(4)]
        (line,) = axes.lines
        assert line.get_ydata() == pytest.approx([each.mean() for each in values])
        edges = axes.collections[0].get_paths()[0].vertices
        for step, each in enumerate(values):
            at = edges[edges[:, 0] == step, 1]
            assert [at.min(), at.max()] == pytest.approx(np.percentile(each, [25, 75]))
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ["before", "1", "2", "3"]


def test_repeats_are_named_and_runs_of_other_steps_are_numbered(folder, tmp_path):
    write_stages(folder, 2, r=2)
    alone = against_stages(stages_of([folder], ["run"]))
    assert [tick.get_text() for tick in alone.axes[0].get_xticklabels()] == ["before", "1:1", "1:2", "2:1", "2:2"]
    other = write_run(tmp_path / "other")
    write_stages(other, 3)
    both = against_stages(stages_of([folder, other, tmp_path], ["a", "b", "without stages"]))
    assert len(both.axes[0].lines) == 2
    assert [text.get_text() for text in both.legends[0].get_texts()] == ["a", "b"]
    assert "before" not in [tick.get_text() for tick in both.axes[0].get_xticklabels()]


def test_without_labels_there_is_no_panel_of_dice(folder):
    write_stages(folder, 1, labels=False)
    drawn = [axes.get_ylabel() for axes in against_stages(stages_of([folder], ["run"])).axes]
    assert drawn == ["CC", "Folding [%]", "Seconds"]


def test_without_stages_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="stages=true"):
        against_stages({})
