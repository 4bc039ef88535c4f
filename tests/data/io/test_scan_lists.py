"""Lists of raw scans from tables and globs."""

import json
import re

import pytest

from regcascade.data.io.scan_lists import Source, check_names, find, read_rows, read_table


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_table_names_files_relative_to_itself(tmp_path):
    table = tmp_path / "scans.csv"
    table.write_text("name,image,label,group\npig2,b.mha,,p\n,sub/a.nii.gz,sub/a_seg.nii.gz,p\n")
    assert read_table(table) == [
        Source("a", tmp_path / "sub/a.nii.gz", tmp_path / "sub/a_seg.nii.gz", group="p"),
        Source("pig2", tmp_path / "b.mha", group="p"),
    ]
    rows = [{"image": "dicom", "series": "1.2", "points": "p.csv", "mask": None}]
    (tmp_path / "scans.json").write_text(json.dumps(rows))
    expected = Source("dicom", tmp_path / "dicom", points=tmp_path / "p.csv", series="1.2")
    assert read_table(tmp_path / "scans.json") == [expected]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,lables\na.nii,b.nii\n", "column 'lables', which is not known. Known: name, image, labels"),
        ("a.csv", "name,image\n", "lists no scans"),
        ("a.json", "{}", "must hold a list of objects"),
        ("a.json", "[", "cannot be read as a table"),
        ("a.json", "[" * 100_000, "cannot be read as a table (it is nested too deeply)"),
    ],
)
def test_bad_tables_say_what_is_wrong(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("row", "name", "problem"),
    [
        ("bad,\n", "bad", "scan 2 names no image"),
        (",\n", "scan 2", "scan 2 names no image"),
        ("bad,x.nii\nbad,y.nii\n", "bad", "more than one scan of the name 'bad' ({root}/x.nii, {root}/y.nii)"),
        ("../bad,x.nii\n", "../bad", "no valid name"),
        ("b\x1bad,x.nii\n", "b\x1bad", "no valid name"),
        (f"{'b' * 201},x.nii\n", "b" * 201, "no valid name"),
    ],
)
def test_a_bad_row_is_a_scan_with_a_problem_and_leaves_the_others_alone(row, name, problem, tmp_path):
    table = tmp_path / "a.csv"
    table.write_text(f"name,image\na,a.nii\n{row}", encoding="utf-8")
    sources = {source.name: source for source in read_table(table)}
    assert sources.pop("a") == Source("a", tmp_path / "a.nii")
    ((found, bad),) = sources.items()
    assert found == name and problem.format(root=tmp_path) in bad.problem
    with pytest.raises(ValueError, match=re.escape(problem.format(root=tmp_path))):
        check_names(read_table(table), table)


def test_globs_match_by_what_their_wildcards_stand_for(tmp_path):
    touch(tmp_path, "s2/t1.nii.gz", "s2/seg.nii.gz", "s1/t1.nii.gz", "s1/brain.mha", "notes.txt")
    assert find(tmp_path, "*/t1.nii.gz", "*/seg.nii.gz", "*/brain.mha") == [
        Source("s1", tmp_path / "s1/t1.nii.gz", mask=tmp_path / "s1/brain.mha"),
        Source("s2", tmp_path / "s2/t1.nii.gz", tmp_path / "s2/seg.nii.gz"),
    ]
    touch(tmp_path, "liver-orig001.mhd", "liver-seg001.mhd")
    (source,) = find(tmp_path, "liver-orig*.mhd", "liver-seg*.mhd")
    assert (source.name, source.labels) == ("001", tmp_path / "liver-seg001.mhd")


def test_globs_that_find_nothing_or_too_much_are_refused(tmp_path):
    touch(tmp_path, "s1/t1.nii.gz", "s2/seg.nii.gz")
    with pytest.raises(ValueError, match=r"nothing that matches '\*/t2.nii'"):
        find(tmp_path, "*/t2.nii")
    good, lonely = find(tmp_path, "*/t1.nii.gz", "*/seg.nii.gz")
    assert good == Source("s1", tmp_path / "s1/t1.nii.gz")
    assert lonely.name == "s2" and "s2/seg.nii.gz has no image by" in lonely.problem
    with pytest.raises(ValueError, match="There is no folder"):
        find(tmp_path / "none", "*")
    with pytest.raises(ValueError, match="is not supported"):
        find(tmp_path, "**/t1.nii.gz")


def test_wildcards_stand_for_nothing_hidden(tmp_path):
    touch(tmp_path, "._a.nii", "a.nii", ".trash/b.nii", "s/b.nii", "x.c.nii")
    assert [source.name for source in find(tmp_path, "*.nii")] == ["a", "x.c"]
    assert [source.name for source in find(tmp_path, "x*.nii")] == [".c"]
    assert [source.name for source in find(tmp_path, "*/?.nii")] == ["s_b"]
    assert [source.name for source in find(tmp_path, ".trash/*.nii")] == ["b"]


def test_wildcards_that_stand_for_the_same_name_a_scan_once(tmp_path):
    touch(tmp_path, "S01/S01.hdr", "S02/S02.hdr", "S02/S02.label.hdr")
    found = find(tmp_path, "*/???.hdr", None)
    assert [source.name for source in found] == ["S01_S_0_1", "S02_S_0_2"]
    found = find(tmp_path, "*/*.label.hdr")
    assert [source.name for source in found] == ["S02"]


def test_empty_cells_beyond_the_named_columns_are_left_out_and_others_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    for text in ("fixed,moving\na.nii,b.nii,\n", "fixed,moving,\na.nii,b.nii,\n"):
        path.write_text(text)
        assert read_rows(path) == [{"fixed": "a.nii", "moving": "b.nii"}]
    path.write_text("fixed,moving\na.nii,b.nii,c.nii\n")
    with pytest.raises(ValueError, match=r"pairs\.csv.*row 1 has more cells"):
        read_rows(path)
