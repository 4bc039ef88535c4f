"""Tests and intervals against SciPy, tables printed elsewhere, and loops."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from regcascade.report.tables.statistics import bootstrap_intervals, holm, subjects, t_test, wilcoxon_test

FIRST = np.array([0.71, 0.68, 0.74, 0.69, 0.80, 0.66, 0.73, 0.77])
SECOND = np.array([0.70, 0.64, 0.75, 0.62, 0.71, 0.63, 0.71, 0.70])
NOTHING = np.zeros(5)


def test_the_t_test_is_scipys_paired_one_and_the_formulas():
    differences = FIRST - SECOND
    statistic = differences.mean() / (differences.std(ddof=1) / math.sqrt(8))
    assert t_test(differences) == pytest.approx(2 * stats.t.sf(statistic, df=7))
    assert t_test(differences) == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue)


def test_wilcoxon_is_scipys_and_an_enumeration_of_all_signs():
    differences = np.array([0.011, 0.04, -0.013, 0.07, 0.09, 0.032, 0.021, 0.075])
    ranks = np.argsort(np.argsort(abs(differences))) + 1
    seen = ranks[differences > 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=8)]
    assert wilcoxon_test(differences) == pytest.approx(2 * np.mean([total >= seen for total in sums]))
    assert wilcoxon_test(FIRST - SECOND) == stats.wilcoxon(FIRST, SECOND).pvalue


@pytest.mark.parametrize("test", [t_test, wilcoxon_test])
def test_no_test_of_one_pair_and_no_difference_between_equal_runs(test):
    assert math.isnan(test(np.array([0.1])))
    assert math.isnan(test(np.array([])))
    assert test(NOTHING) == 1
    assert test(NOTHING + 0.25) < 0.1


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3 = 0.06, then 0.03 * 2 = 0.06, then 0.04 * 1, raised to the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([0.03]) == pytest.approx([0.03])


def test_holm_does_not_count_tests_that_were_not_made():
    corrected = holm([math.nan, 0.02, 0.01])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.02, 0.02])
    assert np.isnan(holm([math.nan])).all()


def test_each_scan_is_a_subject_unless_two_meet_only_each_other():
    fixed, moving = subjects(["a", "a", "c", "d", "e"], ["b", "c", "a", "e", "d"])
    assert len({*fixed[:3], *moving[:3]}) == 3
    assert fixed[3] == moving[3] == fixed[4] == moving[4]
    assert fixed[3] not in {*fixed[:3], *moving[:3]}


def test_a_pairs_weight_is_the_product_of_the_draws_of_its_scans():
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("d", "a"), ("e", "f")]  # e and f are one subject
    differences = np.array([[0.1, 1], [0.5, math.nan], [-0.3, 3], [0.2, math.nan], [0.7, -2]])
    found = bootstrap_intervals(differences, [f for f, _ in pairs], [m for _, m in pairs], resamples=60, seed=3)

    draws = np.random.default_rng(3).multinomial(5, [0.2] * 5, size=60)
    place = {"a": 0, "b": 1, "c": 2, "d": 3, "ef": 4}  # in the order of the pairs
    assert found == pytest.approx(np.array([_interval(draws, place, pairs, column) for column in differences.T]))


def _interval(draws, place, pairs, differences):
    means = []
    for drawn in draws:
        total = weight = 0.0
        for (fixed, moving), difference in zip(pairs, differences, strict=True):
            if math.isnan(difference):
                continue
            times = drawn[place["ef"]] if fixed == "e" else drawn[place[fixed]] * drawn[place[moving]]
            total, weight = total + times * difference, weight + times
        if weight:
            means.append(total / weight)
    return np.percentile(means, [2.5, 97.5])


def test_the_interval_covers_the_truth_where_scans_are_shared_and_the_t_test_does_not():
    scans, trials = 25, 300
    fixed, moving = map(list, zip(*itertools.permutations(range(scans), 2), strict=True))
    generator = np.random.default_rng(0)
    of_fixed, of_moving = generator.standard_normal((2, scans, trials))
    differences = of_fixed[fixed] + of_moving[moving] + generator.standard_normal((len(fixed), trials))
    ends = bootstrap_intervals(differences, list(map(str, fixed)), list(map(str, moving)), resamples=500)
    assert 0.89 < np.mean((ends[:, 0] < 0) & (ends[:, 1] > 0)) < 0.98
    rejected = np.mean([t_test(column) < 0.05 for column in differences.T])
    assert rejected > 0.5  # where 0.05 is meant


def test_pairs_that_share_no_scan_are_as_independent_as_they_look():
    generator = np.random.default_rng(0)
    differences = generator.standard_normal((40, 300))
    fixed, moving = [f"{k}_inhale" for k in range(40)], [f"{k}_exhale" for k in range(40)]
    ends = bootstrap_intervals(differences, fixed, moving, resamples=500)
    half = stats.t.ppf(0.975, 39) * differences.std(axis=0, ddof=1) / math.sqrt(40)
    assert np.mean(ends[:, 1] - ends[:, 0]) == pytest.approx(np.mean(2 * half), rel=0.07)


def test_an_atlas_that_is_fixed_in_all_pairs_takes_no_part():
    differences = np.random.default_rng(0).standard_normal((40, 1))
    ends = bootstrap_intervals(differences, ["atlas"] * 40, [f"scan_{k}" for k in range(40)])
    alone = stats.bootstrap((differences[:, 0],), np.mean, method="percentile", rng=0).confidence_interval
    assert ends[0] == pytest.approx(np.array(alone), abs=0.06)


def test_there_is_no_interval_of_one_pair_or_one_subject():
    assert np.isnan(bootstrap_intervals(np.array([[0.1]]), ["a"], ["b"])).all()
    assert np.isnan(bootstrap_intervals(np.array([[0.1], [0.3]]), ["a", "b"], ["b", "a"])).all()
    ends = bootstrap_intervals(
        np.array([[0.1, 0.1], [math.nan, 0.3], [math.nan, 0.2]]), ["a", "b", "c"], ["b", "c", "a"]
    )
    assert np.isnan(ends[0]).all() and np.isfinite(ends[1]).all()


def test_the_same_seed_gives_the_same_interval():
    differences = (FIRST - SECOND)[:, None]
    names = [f"s{k}" for k in range(8)], [f"s{k + 1}" for k in range(8)]
    assert (bootstrap_intervals(differences, *names) == bootstrap_intervals(differences, *names)).all()
    assert (bootstrap_intervals(differences, *names) != bootstrap_intervals(differences, *names, seed=1)).any()


def test_the_papers_number_of_pairs_takes_seconds():
    fixed, moving = map(list, zip(*itertools.permutations(map(str, range(131)), 2), strict=True))
    assert len(fixed) == 17030
    ends = bootstrap_intervals(np.random.default_rng(0).standard_normal((17030, 20)), fixed, moving)
    assert np.isfinite(ends).all()
