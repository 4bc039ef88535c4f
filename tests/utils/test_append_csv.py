import math
import resource
import signal

import pytest
from forked import forked

from regcascade.utils.append_csv import AppendCSV, gather, part_of, parts_of, read_table

ROWS = [
    {"fixed": "NA", "moving": 'a, "b"', "dice": 1 / 3, "seconds": 1e-7, "step": 1},
    {"fixed": "001", "moving": "c", "dice": math.nan, "seconds": 2.0, "step": 2},
]


@pytest.fixture
def path(tmp_path):
    table = AppendCSV(tmp_path / "rows.csv", fresh=True)
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
    table = AppendCSV(path, fresh=False)
    assert path.read_text() == whole[: whole.rstrip("\n").rindex("\n") + 1]
    table.append(ROWS[1])
    assert path.read_text() == whole


def test_a_torn_header_leaves_an_empty_table(path):
    path.write_text("fixed,mov")
    table = AppendCSV(path, fresh=False)
    assert len(read_table(path, ["fixed", "moving"])["fixed"]) == 0
    table.append(ROWS[0])
    assert len(read_table(path, ["fixed", "moving"])) == 1


def test_a_fresh_table_forgets_what_was_there(path):
    AppendCSV(path, fresh=True)
    assert path.read_text() == ""


@pytest.mark.parametrize("room", [0, 3])
def test_a_disk_that_fills_keeps_whole_rows_and_names_the_file(path, room):
    before = path.read_bytes()
    table = AppendCSV(path, fresh=False)

    def append() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, len(before) + room))
        with pytest.raises(ValueError, match=r"rows\.csv could not be written \(File too large\)\. What.*Make room"):
            table.append(ROWS[0])

    process = forked(append)
    process.join()
    assert process.exitcode == 0
    assert path.read_bytes() == before


def test_a_header_for_which_there_was_no_room_is_written_with_the_next_row(tmp_path):
    path = tmp_path / "rows.csv"
    table = AppendCSV(path, fresh=True)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(ValueError, match="No space left"):
        table.append(ROWS[0])
    path.unlink()
    table.append(ROWS[0])
    assert len(read_table(path, ["fixed", "moving"])) == 1


def test_rows_of_other_columns_are_refused(path):
    table = AppendCSV(path, fresh=False)
    with pytest.raises(ValueError, match=r"rows\.csv has other columns .*\(cc, dice\)"):
        table.append({("cc" if key == "dice" else key): value for key, value in ROWS[0].items()})
    assert len(read_table(path, ["fixed", "moving"])) == 2


def in_order(row):
    return None if row["moving"] == "dropped" else (int(row["step"]),)


def test_parts_are_gathered_in_order_and_each_row_once(path):
    for rank, steps in enumerate(([0, 2], [4, 3])):
        part = AppendCSV(part_of(path, rank), fresh=True)
        for step in steps:
            part.append(ROWS[0] | {"step": step, "dice": 0.0})
        part.append(ROWS[0] | {"step": 9, "moving": "dropped"})
    torn = part_of(path, 1)
    torn.write_bytes(torn.read_bytes() + b"001,to")
    assert len(parts_of(path)) == 2
    gather(path, in_order)
    table = read_table(path, ["fixed", "moving"])
    assert table["step"].tolist() == [0, 1, 2, 3, 4]
    assert table["dice"].fillna(-1).tolist() == [0, 1 / 3, -1, 0, 0]  # of step 2 the row that was gathered before
    assert parts_of(path) == []
    before = path.read_bytes()
    gather(path, in_order)
    assert path.read_bytes() == before


def test_parts_of_other_columns_are_refused_and_kept(path):
    AppendCSV(part_of(path, 0), fresh=True).append({"fixed": "a", "moving": "b", "step": 1})
    with pytest.raises(ValueError, match=r"rows\.csv\.0\.part has other columns"):
        gather(path, in_order)
    assert len(parts_of(path)) == 1


def test_nothing_gathered_is_an_empty_table(tmp_path):
    gather(tmp_path / "rows.csv", in_order)
    assert (tmp_path / "rows.csv").read_text() == ""


def test_a_table_that_widens_takes_any_columns(tmp_path):
    path = tmp_path / "rows.csv"
    AppendCSV(path, widens=True).append({"step": 1, "a": 0.5})
    table = AppendCSV(path, widens=True)
    table.append({"b, too": 2.0, "step": 2})
    table.append({"a": math.nan, "b, too": 3.0})
    assert path.read_text() == 'step,a,"b, too"\n1,0.5,\n2,,2.0\n,,3.0\n'
