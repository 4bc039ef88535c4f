"""Runs beside each other: what is read, what is refused, the tables and the command."""

import csv
import io
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from regcascade.cli.main import main
from regcascade.evaluation.tables import summarise
from regcascade.report.runs.find import find_runs, folder_names
from regcascade.report.runs.run import INITIAL, before_registration, read_run, read_runs
from regcascade.report.tables.compare import (
    compare,
    numbers,
    print_comparison,
    shown_table,
    shown_tests,
    write_comparison,
)
from regcascade.report.tables.markup import latex, markdown, terminal_tables
from regcascade.report.tables.statistics import bootstrap_intervals

SCANS = ["NA", "001", "b|c", "d_e"]  # names that a reader of tables may spoil
PAIRS = list(itertools.permutations(SCANS, 2))
ALL = ["table.md", "table.tex", "table.csv", "tests.md", "tests.tex", "tests.csv"]


def table(gain=0.1, seed=0, pairs=PAIRS):
    """Rows as an evaluation writes them; what is before registration is the same for every gain and seed."""
    before = np.random.default_rng(99).uniform(0.4, 0.6, len(pairs))
    noise = np.random.default_rng(seed).normal(0, 0.02, (3, len(pairs)))
    return pd.DataFrame(
        {
            "fixed": [fixed for fixed, _ in pairs],
            "moving": [moving for _, moving in pairs],
            "dice_liver": before + gain + noise[0],
            "dice_left_kidney": before + gain + noise[1],
            "dice_mean": before + gain + noise[:2].mean(0),
            "hd95_mm": [math.nan] * len(pairs),
            "folding_percent": abs(noise[2]),
            "seconds": 0.5 + noise[2],
            "dice_liver_before": before,
            "dice_left_kidney_before": before,
            "dice_mean_before": before,
        }
    )


def write(folder, rows, **summary):
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "pairs.csv", index=False)
    content = {"pairs": len(rows), "parameters": 306_889, "paper_size_mib": 3.512, "measures": summarise(rows)}
    (folder / "summary.json").write_text(json.dumps(content | summary))
    return folder


@pytest.fixture
def two(tmp_path):
    return [write(tmp_path / "vm", table()), write(tmp_path / "dr_net", table(0.15, seed=1), parameters=None)]


def refused(folders, names=()):
    with pytest.raises(ValueError) as error:
        read_runs(find_runs(folders)[0], names)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_reads_back_as_it_was_written(two):
    run = read_run(two[0], "VM")
    rows = table()
    assert list(run.pairs.index) == PAIRS  # NA and 001 among them
    for column in rows.columns[2:]:
        np.testing.assert_allclose(run.pairs[column], rows[column].astype(float), rtol=1e-12)
    assert (run.name, run.parameters, run.paper_size_mib) == ("VM", 306_889, 3.512)


def test_the_table_has_pandas_means_and_sample_deviations(two):
    comparison = compare(read_runs(two))
    assert comparison.measures == ["dice_mean", "folding_percent", "seconds"]  # no pair has HD95
    found = numbers(comparison).set_index("name")
    dice = table()["dice_mean"]
    assert found.loc["vm", "dice_mean_mean"] == pytest.approx(dice.sum() / 12)
    assert found.loc["vm", "dice_mean_std"] == pytest.approx(math.sqrt(((dice - dice.mean()) ** 2).sum() / 11))
    assert found.loc["vm", "dice_mean_pairs"] == 12
    shown = shown_table(comparison).set_index("Method")
    assert shown.loc["vm", "Dice"] == f"{dice.mean():.3f} ({dice.std():.3f})"
    assert list(shown.loc["vm", ["Parameters [M]", "Paper size [MiB]"]]) == ["0.31", "3.5"]
    assert shown.loc["dr_net", "Parameters [M]"] == "-"


def test_labels_are_shown_and_tested_when_asked_for(two):
    comparison = compare(read_runs(two), per_label=True)
    assert list(shown_table(comparison))[1:5] == ["Dice", "Folding [%]", "Dice liver", "Dice left kidney"]
    assert set(comparison.tests["measure"]) == {"dice_mean", "folding_percent", "dice_liver", "dice_left_kidney"}


def test_tests_are_scipys_on_paired_rows_whatever_their_order(tmp_path, two):
    third = write(tmp_path / "third", table(0.11, seed=2).sample(frac=1, random_state=0))
    tests = compare(read_runs([*two, third])).tests
    dice = [table(gain, seed)["dice_mean"] for gain, seed in ((0.1, 0), (0.15, 1), (0.11, 2))]
    rows = tests[tests["measure"] == "dice_mean"]
    assert list(zip(rows["first"], rows["second"], strict=True)) == [
        ("vm", "dr_net"), ("vm", "third"), ("dr_net", "third"),
    ]  # fmt: skip
    for row, (a, b) in zip(rows.itertuples(), ((0, 1), (0, 2), (1, 2)), strict=True):
        assert row.pairs == 12
        assert row.difference == pytest.approx((dice[a] - dice[b]).mean())
        assert row.t_test == pytest.approx(stats.ttest_rel(dice[a], dice[b]).pvalue)
        assert row.wilcoxon == pytest.approx(stats.wilcoxon(dice[a], dice[b]).pvalue)
        ends = bootstrap_intervals((dice[a] - dice[b]).to_numpy()[:, None], *zip(*PAIRS, strict=True))
        assert [row.low, row.high] == pytest.approx(list(ends[0]))
    smallest = rows["t_test"].min()
    assert rows["t_test_holm"].min() == pytest.approx(3 * smallest)


def test_tests_use_the_pairs_that_both_have_and_the_table_says_how_many(tmp_path):
    first, second = table(), table(0.15, seed=1)
    first.loc[0, "dice_mean"] = second.loc[[1, 2], "dice_mean"] = math.nan
    first["cc"], second["cc"] = math.nan, math.nan
    first.loc[0, "cc"], second.loc[3, "cc"] = 0.9, 0.8  # no pair in common
    comparison = compare(read_runs([write(tmp_path / "a", first), write(tmp_path / "b", second)]))
    assert [cell[-5:] for cell in shown_table(comparison)["Dice"]] == [" n=11", " n=10"]
    test = comparison.tests.set_index("measure").loc["dice_mean"]
    both = (first["dice_mean"] - second["dice_mean"]).iloc[3:]
    assert test["pairs"] == 9
    assert test["t_test"] == pytest.approx(stats.ttest_1samp(both, 0).pvalue)
    assert "cc" not in set(comparison.tests["measure"])
    assert shown_table(comparison)["CC"].tolist() == ["0.900 n=1", "0.800 n=1"]


def test_a_measure_that_one_run_lacks_is_shown_and_not_tested(tmp_path, two):
    other = write(tmp_path / "newer", table().assign(jaccard_mean=0.5, some_new_measure=1.0))
    comparison = compare(read_runs([two[0], other]))
    assert shown_table(comparison)["Jaccard"].tolist() == ["-", "0.500 (0.000)"]
    assert shown_table(comparison)["some new measure"].tolist() == ["-", "1.000 (0.000)"]
    assert "jaccard_mean" not in set(comparison.tests["measure"])


def test_other_measures_of_single_labels_and_costs_are_told_by_their_names(tmp_path):
    rows = table().assign(asd_mm=1.0, asd_mm_left_kidney=2.0, jaccard_liver=0.5, peak_memory_mib=90.0)
    runs = read_runs([write(tmp_path / name, rows) for name in "ab"])
    assert compare(runs).measures == ["dice_mean", "folding_percent", "asd_mm", "seconds", "peak_memory_mib"]
    shown = list(shown_table(comparison := compare(runs, per_label=True)))
    assert {"ASD [mm]", "ASD [mm] left kidney", "Jaccard liver"} < set(shown)
    assert not {"seconds", "peak_memory_mib"} & set(comparison.tests["measure"])


def test_runs_without_a_measure_in_common_have_a_table_and_no_tests(tmp_path):
    rows = table()[["fixed", "moving"]]
    runs = read_runs([write(tmp_path / "a", rows.assign(cc=0.5)), write(tmp_path / "b", rows.assign(sdlogj=0.1))])
    assert compare(runs).tests.empty
    assert len(write_comparison(compare(runs), tmp_path / "out")) == 3


def test_equal_runs_do_not_differ(tmp_path, two):
    copy = write(tmp_path / "copy", table())
    test = compare(read_runs([two[0], copy])).tests.iloc[0]
    assert (test["difference"], test["low"], test["high"], test["t_test"], test["wilcoxon_holm"]) == (0, 0, 0, 1, 1)


def test_one_pair_has_no_deviation_interval_or_test(tmp_path):
    folders = [write(tmp_path / name, table(gain, pairs=PAIRS[:1])) for name, gain in (("a", 0.1), ("b", 0.2))]
    comparison = compare(read_runs(folders))
    assert "(" not in shown_table(comparison).loc[0, "Dice"]
    shown = shown_tests(comparison.tests).iloc[0]
    assert shown["Mean"] == "-0.100"
    assert set(shown[["95 % interval", "t", "t, Holm", "Wilcoxon", "W., Holm"]]) == {"-"}


def test_the_row_before_registration(two):
    runs = read_runs(two)
    runs.insert(0, before_registration(runs[0]))
    comparison = compare(runs)
    before = table()["dice_mean_before"]
    row = shown_table(comparison).iloc[0]
    assert list(row)[:3] == [INITIAL, f"{before.mean():.3f} ({before.std():.3f})", "-"]
    assert len(comparison.tests[comparison.tests["measure"] == "dice_mean"]) == 3
    assert len(comparison.tests[comparison.tests["measure"] == "folding_percent"]) == 1


def test_labels_stay_out_where_they_were_not_measured_before_registration(tmp_path):
    run = read_run(write(tmp_path / "a", table().drop(columns=["dice_liver_before", "dice_left_kidney_before"])), "a")
    assert compare([before_registration(run), run]).measures == ["dice_mean", "folding_percent", "seconds"]


def test_before_registration_needs_its_columns(tmp_path):
    rows = table()
    rows = rows[[column for column in rows if not column.endswith("_before")]]
    with pytest.raises(ValueError, match="--initial needs columns such as dice_mean_before"):
        before_registration(read_run(write(tmp_path / "a", rows), "a"))


def test_the_sets_of_pairs_and_other_text_are_no_measures(tmp_path):
    rows = table().assign(status="done")
    rows.insert(0, "set", "lits")
    assert "set" not in (pairs := read_run(write(tmp_path / "a", rows), "a").pairs) and "status" not in pairs


def test_other_pairs_are_refused(tmp_path, two):
    fewer = write(tmp_path / "fewer", table(pairs=PAIRS[:10]))
    message = refused([two[0], fewer])
    assert (
        "vm and fewer were evaluated on different pairs: 2 only in vm (d_e <- 001, d_e <- b|c), 10 in both" in message
    )
    assert "data.pairs=" in message
    message = refused([fewer, write(tmp_path / "other", table(pairs=[("x", str(k)) for k in range(5)]))])
    assert "10 only in fewer (" in message and "5 only in other (x <- 0, x <- 1, x <- 2 and 2 more)" in message


def test_other_labels_are_refused(tmp_path, two):
    other = write(tmp_path / "other", table().rename(columns={"dice_liver": "dice_spleen"}))
    message = refused([two[0], other])
    assert "different labels: 1 only in vm (liver), 1 only in other (spleen)" in message


def test_labels_that_were_warped_in_another_way_are_refused(tmp_path, two):
    other = write(tmp_path / "other", table(), label_interpolation="linear")
    assert "vm was evaluated with labels=nearest, other with labels=linear" in refused([two[0], other])


def test_other_scans_of_the_same_names_are_refused(tmp_path, two):
    rows = table()
    rows.loc[4, "dice_mean_before"] += 0.01
    message = refused([two[0], write(tmp_path / "coarser", rows)])
    assert "dice_mean_before differs in 1 of 12 pairs, as in 001 <- b|c" in message
    rows = table()
    rows["dice_mean_before"] += 1e-6  # another device
    read_runs([two[0], write(tmp_path / "gpu", rows)])


def test_duplicate_pairs_are_refused(tmp_path):
    rows = pd.concat([table(), table().iloc[[2]]])
    assert "lists 1 pairs more than once: NA <- d_e" in refused([write(tmp_path / "twice", rows)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.csv", "", "cannot be read as a table"),
        ("pairs.csv", b"\xff\xfe\x00", "cannot be read as a table"),
        ("pairs.csv", "fixed,dice_mean\na,1\n", "has no column moving"),
        ("pairs.csv", "fixed,moving,dice_mean\n", "has no pairs"),
        ("pairs.csv", "fixed,moving,dice_mean\na,b,0.5\nb,a,0.5,7\n", "cannot be read as a table"),
        ("pairs.csv", "fixed,moving,dice_mean\na,b,0.5\nb,a,0.5.1\n", "dice_mean of pair 2 is '0.5.1'"),
        ("pairs.csv", "fixed,moving,dice_mean\na,b,0.5\nb,a,inf\n", "dice_mean of pair 2 is 'inf'"),
        ("pairs.csv", "fixed,moving,dice_mean\na,b,0.5\n", "pairs.csv has 1 pairs and summary.json 12"),
        ("summary.json", "{", "cannot be read as JSON"),
        ("summary.json", "[]", "does not hold names and values"),
        ("summary.json", '{"pairs": 12}', "is not the summary of an evaluation"),
        ("summary.json", '{"pairs": 12, "measures": {"dice_mean": {"mean": 0.7}}}', "not of the same evaluation"),
        ("summary.json", None, "is an evaluation that did not end: it has no summary.json"),
        ("pairs.csv", None, "is no evaluated run: it has no pairs.csv"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_by_name(two, name, content, message):
    file = two[0] / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = refused(two)
    assert message in found and str(two[0]) in found and "python evaluate.py" in found


def test_a_row_that_was_cut_off_is_refused(two):
    file = two[0] / "pairs.csv"
    file.write_text(file.read_text()[:-60] + "\n")
    assert str(two[0]) in refused(two)


def test_a_multirun_folder_stands_for_the_runs_within(tmp_path):
    root = tmp_path / "multirun"
    inside = [write(root / name, table()) for name in ("0_n-1", "1_n-2")]
    (root / "2_n-3" / ".hydra").mkdir(parents=True)
    for place in ("", ".hydra"):
        (root / "2_n-3" / place / "config.yaml").touch()
    assert find_runs([root]) == (inside, [root / "2_n-3"])
    assert "did not end" not in refused([root / "2_n-3"]) and "no evaluated run" in refused([root / "2_n-3"])
    assert "is named twice" in refused([root, inside[1]])
    for folder in inside:
        (folder / "summary.json").unlink()
    assert "None of the 3 runs" in refused([root])


def test_paths_that_are_no_runs_are_refused(tmp_path, two):
    assert "There is no" in refused([tmp_path / "nowhere"])
    assert "is a file" in refused([two[0] / "pairs.csv"])
    (tmp_path / "empty").mkdir()
    assert "is no evaluated run: it has no pairs.csv and no summary.json" in refused([tmp_path / "empty"])


def test_names_are_one_for_each_run_and_unique(tmp_path, two):
    assert [run.name for run in read_runs(two, ["A", "B"])] == ["A", "B"]
    assert "--names gives 1 names for 2 runs" in refused(two, ["A"])
    assert "A would name several rows" in refused(two, ["A", "A"])
    assert INITIAL in refused(two, ["A", INITIAL])


def test_runs_that_do_not_say_what_they_are_go_by_as_much_of_their_folders_as_tells_them_apart(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    assert folder_names([a / "vm", a / "dr"]) == ["vm", "dr"]
    assert folder_names([a / "vm", b / "vm", a / "dr"]) == ["a/vm", "b/vm", "dr"]
    assert folder_names([a / "r1", b / "r1", b / "r20"]) == ["a/r1", "b/r1", "r20"]
    assert folder_names([a / "rate1", a]) == ["rate1", "a"]


def test_the_folder_of_an_evaluation_with_several_r_stands_for_each(tmp_path):
    for r in (1, 2, 3):
        trained = {"model": "voxelmorph", "cascade": "cr", "n": 2}
        write(tmp_path / "shared" / f"r{r}", table(0.1 * r), trained=trained, n=2, r=r)
    runs = read_runs(find_runs([tmp_path / "shared"])[0])
    assert shown_table(compare(runs))["Method"].tolist() == [
        "VoxelMorph CR n=2",
        "VoxelMorph CR n=2 r=2",
        "VoxelMorph CR n=2 r=3",
    ]


def test_files_are_written_and_stale_tests_removed(tmp_path, two):
    out = tmp_path / "tables" / "liver"
    comparison = compare(read_runs(two))
    assert write_comparison(comparison, out) == [out / name for name in ALL]
    assert sorted(file.name for file in out.iterdir()) == sorted(ALL)
    pd.testing.assert_frame_equal(pd.read_csv(out / "tests.csv"), comparison.tests)
    with (out / "table.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["vm", "dr_net"]
    assert r"dr\_net & " in (out / "table.tex").read_text()
    assert "product of how often" in (out / "tests.md").read_text()
    assert write_comparison(compare(read_runs(two[:1])), out) == [out / name for name in ALL[:3]]
    assert sorted(file.name for file in out.iterdir()) == sorted(ALL[:3])
    with pytest.raises(ValueError, match="is a file; name a folder"):
        write_comparison(comparison, out / "table.md")


def test_the_command(tmp_path, two, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    main(["compare", *map(str, two), "--initial", "--names", "VM [1]", "DR"])
    shown = capsys.readouterr().out
    dice = table()["dice_mean"]
    line = next(line for line in shown.splitlines() if line.startswith("VM [1]"))
    assert f"{dice.mean():.3f} ({dice.std():.3f})" in line
    assert INITIAL in shown and "VM [1] - DR" in shown
    assert "Intervals from only 4 scans or subjects are too narrow" in shown
    assert sorted(file.name for file in (tmp_path / "comparison").iterdir()) == sorted(ALL)
    (two[1] / "summary.json").unlink()
    with pytest.raises(SystemExit) as end:
        main(["compare", *map(str, two)])
    assert end.value.code == 1
    assert "summary.json" in capsys.readouterr().err


def test_no_column_is_cut_off_in_a_narrow_terminal(two):
    console = Console(width=60, record=True, file=io.StringIO())
    print_comparison(compare(read_runs(two), per_label=True), console)
    shown = console.export_text()
    assert "…" not in shown
    for heading in ("Method ", "Difference ", "Dice left kidney", "Paper size [MiB]", "W., Holm"):
        assert heading in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_many_tests_are_printed_for_the_first_measure_only(tmp_path):
    names = [f"run{k}" for k in range(8)]
    runs = read_runs([write(tmp_path / name, table(seed=k)) for k, name in enumerate(names)])
    console = Console(width=120, record=True, file=io.StringIO())
    print_comparison(compare(runs), console)
    shown = console.export_text()
    assert "Dice: differences" in shown and "Folding [%]: differences" not in shown
    assert "56 tests in all" in shown


def test_markup_escapes_what_a_name_may_hold():
    texts = pd.DataFrame({"Method": ["[a_b] & 5 % | <x>-2"], "Mean [mm]": ["-0.5 (0.1)"]})
    assert markdown(texts).splitlines() == [
        "| Method | Mean [mm] |",
        "| --- | ---: |",
        r"| [a_b] & 5 % \| <x>-2 | -0.5 (0.1) |",
    ]
    row = next(line for line in latex(texts).splitlines() if "0.5" in line)
    assert row == r"{[}a\_b{]} \& 5 \% | $<$x$>$-2 & $-$0.5 (0.1) \\"
    (shown,) = terminal_tables(texts, "", 80)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(shown)
    assert "[a_b] & 5 % | <x>-2" in console.export_text()


def seeded(folder, cascade, seed, gain):
    """A run that says what it was given, as Hydra does."""
    write(folder, table(gain, seed=seed))
    (folder / ".hydra").mkdir()
    given = [f"cascade={cascade}", f"seed={seed}", f"paths.run={folder}"]
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {one}\n" for one in given))
    return folder


@pytest.fixture
def seeds(tmp_path):
    gains = {("cr", 0): 0.1, ("mcr", 0): 0.2, ("mcr", 1): 0.3, ("cr", 1): 0.1, ("cr", 2): 0.4}
    return {key: seeded(tmp_path / "runs" / "-".join(map(str, key)), *key, gain) for key, gain in gains.items()}


def test_runs_are_averaged_over_seeds(seeds, tmp_path, capsys):
    main(["compare", *map(str, seeds.values()), "--over", "seed", "--out", str(tmp_path / "out")])
    rows = pd.read_csv(tmp_path / "out" / "table.csv").set_index("name")
    assert rows["Runs"].to_dict() == {"cascade=cr": 3, "cascade=mcr": 2}
    single = {key: pd.read_csv(folder / "pairs.csv")["dice_mean"] for key, folder in seeds.items()}
    for cascade, count in (("cr", 3), ("mcr", 2)):
        values = np.stack([single[cascade, seed] for seed in range(count)])
        row = rows.loc[f"cascade={cascade}"]
        assert row["dice_mean_mean"] == pytest.approx(values.mean())
        assert row["dice_mean_std"] == pytest.approx(values.mean(0).std(ddof=1))  # over pairs
        assert row["Dice, SD over runs"] == pytest.approx(values.mean(1).std(ddof=1), abs=5e-4)
    tests = pd.read_csv(tmp_path / "out" / "tests.csv").set_index("measure")
    means = [np.mean([single[c, s] for s in range(k)], axis=0) for c, k in (("cr", 3), ("mcr", 2))]
    assert tests.loc["dice_mean", "difference"] == pytest.approx((means[0] - means[1]).mean())
    assert tests.loc["dice_mean", "t_test"] == pytest.approx(stats.ttest_rel(*means).pvalue)
    assert "Averaged over seed." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--over", "sead"], "no run was given it. Given: cascade, seed, paths.run. Did you mean 'seed'"),
        (["--over", "cascade"], ""),
        (["--over", "seed", "--names", "a"], "1 names for 2 rows: cascade=cr, cascade=mcr"),
        (["--over", "seed", "--rank-by", "cc"], "give one of the two"),
    ],
)
def test_what_cannot_be_averaged_is_told(seeds, tmp_path, capsys, arguments, said):
    if not said:
        seeded(tmp_path / "again", "cr", 0, 0.2)
        arguments, said = [str(tmp_path / "again"), *arguments], "are the same but for cascade=cr"
    with pytest.raises(SystemExit):
        main(["compare", *map(str, seeds.values()), *arguments, "--out", str(tmp_path / "out")])
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
