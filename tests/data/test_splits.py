import json

import pytest

from regcascade.data.splits import Split, split_names

NAMES = [f"scan_{index:03d}" for index in range(40)]


def split(validation=0.25, train=None, names=NAMES, labelled=NAMES, seed=0):
    return split_names(names, labelled, validation, train, seed)


def test_a_fraction_divides_everything_and_nothing_twice():
    parts = split(0.25)
    assert len(parts.validation) == 10
    assert sorted([*parts.train, *parts.validation]) == NAMES


def test_the_split_depends_on_the_names_and_the_seed_alone():
    assert split(names=NAMES[::-1]) == split()
    assert split(seed=1) != split()
    # Pinned: a run of another year and machine must leave out the same scans.
    assert split(4).validation == ["scan_000", "scan_002", "scan_010", "scan_035"]


def test_a_new_scan_hardly_moves_the_others():
    before, after = split(10).validation, split(10, names=[*NAMES, "scan_new"]).validation
    assert len(set(before) - set(after)) <= 1


def test_counts_names_and_the_rest():
    parts = split(3, 5)
    assert (len(parts.validation), len(parts.train)) == (3, 5)
    assert set(parts.validation) <= set(split(6).validation)
    listed = split(["scan_007", "scan_003"], None)
    assert listed.validation == ["scan_003", "scan_007"] and len(listed.train) == 38
    assert not set(split(30, NAMES[:10]).validation) & set(NAMES[:10])
    assert split(1.0, 0) == Split([], NAMES)


def test_names_from_files(tmp_path):
    text = tmp_path / "validation.txt"
    text.write_text("# held out\nscan_001\n\nscan_002\n")
    assert split(str(text)).validation == ["scan_001", "scan_002"]
    both = tmp_path / "split.json"
    both.write_text(json.dumps({"train": NAMES[:4], "validation": NAMES[4:6]}))
    assert split(str(both), str(both)) == Split(NAMES[:4], NAMES[4:6])


def test_validation_is_drawn_from_labelled_scans():
    parts = split(0.5, labelled=NAMES[:8])
    assert len(parts.validation) == 4 and set(parts.validation) <= set(NAMES[:8])
    assert len(parts.train) == 36
    assert len(split(0.5, labelled=[]).validation) == 20


@pytest.mark.parametrize(
    ("validation", "train", "message"),
    [
        (1.5, None, r"data\.validation=1\.5 is not valid"),
        (-1, None, r"data\.validation=-1 is not valid"),
        (True, None, r"data\.validation=True is not valid"),
        (41, None, r"data\.validation=41 asks for 41 scans, but only 40"),
        (10, 31, r"data\.train=31 asks for 31 scans, but only 30"),
        (["scan_01"], None, r"data\.validation: there is no scan 'scan_01'.*Did you mean"),
        (["scan_001", "scan_001"], None, "more than once"),
        (["scan_001"], ["scan_001"], "both list 'scan_001'"),
        ("none.txt", None, r"data\.validation=none\.txt: there is no such file"),
    ],
)
def test_a_split_that_cannot_be_is_refused(validation, train, message):
    with pytest.raises(ValueError, match=message):
        split(validation, train)


@pytest.mark.parametrize("content", ["{", '{"other": []}', "[1, 2]", "3"])
def test_a_broken_file_of_names_is_refused_by_name(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"data\.validation: .*names\.json"):
        split(str(path))
