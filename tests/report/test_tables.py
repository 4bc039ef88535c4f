import io
import math
import statistics

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from regcascade.report.tables.terminal import measure_table, measure_tables, model_table


def text(table: Table, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def line(table: Table, beginning: str) -> list[str]:
    found = next(line for line in text(table).splitlines() if line.startswith(beginning))
    return [cell.strip() for cell in found[len(beginning) :].split("  ") if cell.strip()]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "fixed": ["a", "b", "c"],
            "moving": ["b", "c", "a"],
            "dice_mean": [0.8, 0.7, 0.9],
            "dice_liver": [0.8, 0.7, 0.9],
            "landmark_distance_mm": [2.0, math.nan, 4.0],
            "hd95_mm": [math.nan] * 3,
            "folding_percent": [0.0, 0.5, 0.25],
            "seconds": [0.1, 0.1, 0.1],
            "dice_mean_before": [0.5, 0.6, 0.7],
            "landmark_distance_mm_before": [5.0, 6.0, 10.0],
            "hd95_mm_before": [math.nan] * 3,
        }
    )


def test_means_deviations_and_changes(rows):
    table = measure_table(rows)
    deviation = statistics.stdev([0.8, 0.7, 0.9])
    assert line(table, "Dice ") == ["0.600 (0.100)", f"0.800 ({deviation:.3f})", "+0.200"]
    assert line(table, "Folding [%]")[0] == "-"
    assert "over 3 pairs" in text(table)


def test_the_change_is_of_the_pairs_that_have_both(rows):
    cells = line(measure_table(rows), "Landmark distance [mm], 2 pairs")
    assert cells[0].startswith("7.00")
    assert cells[1].startswith("3.00")
    assert cells[2] == "-4.50"  # of (2 - 5, 4 - 10), not 3 - 7


def test_measures_that_no_pair_has_are_left_out(rows):
    shown = text(measure_table(rows))
    assert "HD95" not in shown
    assert "CC" not in shown
    assert "nan" not in shown


def test_one_pair_has_no_deviation(rows):
    table = measure_table(rows.iloc[:1])
    assert line(table, "Dice ") == ["0.500", "0.800", "+0.300"]
    assert "One pair" in text(table)


def test_a_log_gets_no_colour_codes_and_no_long_lines(rows, capsys):
    Console().print(measure_table(rows))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[green]" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_a_terminal_sees_improvement_and_loss_in_colour(rows):
    console = Console(force_terminal=True, width=80, color_system="standard")
    with console.capture() as captured:
        rows["cc"], rows["cc_before"] = 0.5, 0.6
        console.print(measure_table(rows))
    assert "\x1b[32m+0.200" in captured.get()
    assert "\x1b[31m-0.100" in captured.get()


def test_model_table_counts_parameters_and_both_sizes():
    table = model_table([("affine", 14_166_288), ("stages[0]", 300_547)])
    assert line(table, "affine") == ["14,166,288", "54.0", "162.1"]
    assert line(table, "stages[0]") == ["300,547", "1.1", "3.4"]
    assert line(table, "total") == ["14,466,835", "55.2", "165.6"]  # as the papers print for VoxelMorph


def test_a_model_of_one_part_has_no_total():
    assert "total" not in text(model_table([("stages", 300_547)]))


def test_pairs_of_several_sets_have_a_table_each_and_one_of_all(rows):
    mixed = rows.assign(set=["sliver", *["lits"] * (len(rows) - 1)])
    titles = [str(table.title) for table in measure_tables(mixed)]
    assert titles[0].startswith("sliver: One pair") and titles[1].startswith("lits: Mean")
    assert titles[2] == str(measure_table(rows).title)
    assert len(measure_tables(rows.assign(set="lits"))) == len(measure_tables(rows)) == 1
