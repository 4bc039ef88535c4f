"""Paired tests, Holm's correction, and bootstrap intervals for pairs that share scans."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 2000
_WEIGHTS_AT_ONCE = 2_000_000  # of resamples times pairs: 16 MB


def t_test(differences: Float[np.ndarray, " pairs"]) -> float:
    """Compute the p-value of the two-sided paired t-test, which takes the pairs as independent.

    NaN for fewer than two pairs; 1 where all differences are 0, and 0 where all are the same other number.

    >>> round(t_test(np.array([0.1, 0.2, 0.3])), 3)
    0.074
    """
    from scipy import stats

    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:  # SciPy divides 0 by 0, or warns of lost precision
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon_test(differences: Float[np.ndarray, " pairs"]) -> float:
    """Compute the p-value of Wilcoxon's two-sided signed-rank test, which takes the pairs as independent.

    Differences of 0 are left out; SciPy takes the exact distribution for few pairs without ties. NaN for fewer than two
    pairs, 1 where all differences are 0.

    >>> wilcoxon_test(np.array([0.1, 0.2, 0.3]))
    0.25
    """
    from scipy import stats

    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float] | Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Correct p-values for their number by Holm's step-down method (Scandinavian Journal of Statistics, 1979).

    NaN, a test that could not be made, stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(p_values), math.nan)
    order = np.argsort(p_values)[: int(np.isfinite(p_values).sum())]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return corrected


def subjects(
    fixed: Sequence[str], moving: Sequence[str]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Number the subjects that each pair's fixed and moving scan belong to, from 0: what a bootstrap draws.

    A scan is a subject of its own, except that scans of exactly the same pairs are one: the two scans of a patient that
    are paired only with each other. Drawn apart, they would make intervals too wide by about the square root of 3.

    >>> [list(map(int, numbers)) for numbers in subjects(["a", "c"], ["b", "d"])]
    [[0, 1], [0, 1]]
    """
    pairs_of: dict[str, list[int]] = {}
    for pair, names in enumerate(zip(fixed, moving, strict=True)):
        for name in dict.fromkeys(names):  # once, in an order that does not change from run to run
            pairs_of.setdefault(name, []).append(pair)
    numbers: dict[tuple[int, ...], int] = {}
    subject = {name: numbers.setdefault(tuple(pairs), len(numbers)) for name, pairs in pairs_of.items()}
    return np.array([subject[name] for name in fixed]), np.array([subject[name] for name in moving])


def bootstrap_intervals(
    differences: Float[np.ndarray, "pairs comparisons"],
    fixed: Sequence[str],
    moving: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Float[np.ndarray, "comparisons 2"]:
    """Compute 95 % percentile intervals of mean differences over pairs, where pairs may share scans.

    Each resample draws as many `subjects` (scans) as there are, with replacement. A pair weighs the product of how
    often its two scans were drawn (or how often its subject was, where both are one). This is Owen's "pigeonhole
    bootstrap" (Annals of Applied Statistics, 2007) with one set of scans on both sides. The intervals are rather wide
    where scans are in few pairs each, and too narrow for fewer than about ten scans.

    Args:
        differences: a row per pair, a column per comparison; NaN where a pair lacks the measure.
        fixed, moving: the names of each pair's scans.
        resamples: how often to draw. All columns share the draws.
        seed: of the draws.

    Returns:
        The ends of the intervals; NaN where a column has fewer than two pairs, or pairs of one subject only. Resamples
        that hold none of a column's pairs do not count for it.
    """
    first, second = subjects(fixed, moving)
    known = np.isfinite(differences)
    filled, present = np.where(known, differences, 0.0), known.astype(float)
    count = int(max(first.max(), second.max())) + 1
    generator = np.random.default_rng(seed)
    means = []
    step = max(1, _WEIGHTS_AT_ONCE // len(first))
    for start in range(0, resamples, step):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - start)).astype(float)
        weights = drawn[:, first] * np.where(first == second, 1.0, drawn[:, second])
        totals = weights @ present
        means.append(np.divide(weights @ filled, totals, out=np.full_like(totals, math.nan), where=totals > 0))
    ends = np.full((differences.shape[1], 2), math.nan)
    for column, (rows, values) in enumerate(zip(known.T, np.concatenate(means).T, strict=True)):
        if rows.sum() > 1 and len(np.union1d(first[rows], second[rows])) > 1:
            ends[column] = np.nanquantile(values, [0.025, 0.975])
    return ends
