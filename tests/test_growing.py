import math

import pytest

from regcascade.growing import GrowingTable, read_table

ROWS = [
    {"fixed": "NA", "moving": 'a, "b"', "dice": 1 / 3, "seconds": 1e-7, "step": 1},
    {"fixed": "001", "moving": "c", "dice": math.nan, "seconds": 2.0, "step": 2},
]


@pytest.fixture
def path(tmp_path):
    table = GrowingTable(tmp_path / "rows.csv", fresh=True)
    for row in ROWS:
        table.append(row)
    return table.path


def test_what_is_read_is_what_was_written(path):
    table = read_table(path, ["fixed", "moving"])
    assert table["fixed"].tolist() == ["NA", "001"]
    assert table["moving"].tolist() == ['a, "b"', "c"]
    assert table["dice"][0] == 1 / 3
    assert math.isnan(table["dice"][1])
    assert table["seconds"].tolist() == [1e-7, 2.0]


@pytest.mark.parametrize("torn", [1, 5, 12])
def test_a_torn_last_line_is_dropped_and_the_table_goes_on(path, torn):
    whole = path.read_text()
    path.write_text(whole[:-torn])
    table = GrowingTable(path, fresh=False)
    assert path.read_text() == whole[: whole.rstrip("\n").rindex("\n") + 1]
    table.append(ROWS[1])
    assert path.read_text() == whole


def test_a_torn_header_leaves_an_empty_table(path):
    path.write_text("fixed,mov")
    table = GrowingTable(path, fresh=False)
    assert len(read_table(path, ["fixed", "moving"])["fixed"]) == 0
    table.append(ROWS[0])
    assert len(read_table(path, ["fixed", "moving"])) == 1


def test_a_fresh_table_forgets_what_was_there(path):
    GrowingTable(path, fresh=True)
    assert path.read_text() == ""


def test_rows_of_other_columns_are_refused(path):
    table = GrowingTable(path, fresh=False)
    with pytest.raises(ValueError, match=r"rows\.csv has other columns .*\(cc, dice\)"):
        table.append({("cc" if key == "dice" else key): value for key, value in ROWS[0].items()})
    assert len(read_table(path, ["fixed", "moving"])) == 2


def test_rows_can_be_dropped(path):
    GrowingTable(path, fresh=False).keep(lambda row: row["fixed"] == "NA")
    assert read_table(path, ["fixed", "moving"])["moving"].tolist() == ['a, "b"']
    assert path.read_text().count("\n") == 2
