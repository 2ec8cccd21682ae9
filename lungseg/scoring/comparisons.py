"""Tests of paired differences and of ranks, each with its null hypothesis named, and an effect size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

FLIPS = 9999
RANK_SAMPLES = 1000  # of the bootstrap of ranks
EXACT_UP_TO = 13  # patients: all of 2^13 = 8192 sign patterns are tried, which are fewer than FLIPS

_SEED = 20_260_102
_CELLS = 4_000_000  # in a block of flips x patients (or x tests, if they are more): 32 MB of float64
_ROUNDING = 1e-9  # statistics that differ by less are equal
_RANK_DECIMALS = 12  # means that differ by less are equal
_FLAT = 1e-28  # a smaller variance, at a mean square of 1, is only rounding


def sign_flip_p_values(
    differences: np.ndarray, flips: int = FLIPS, correct_skewness: bool = True
) -> np.ndarray:
    """Return two-sided p values of the studentised sign-flip permutation test.

    The null hypothesis is that the mean is 0. The statistic, computed for each pattern of flipped signs,
    is |g(t)|: t = mean / (sd / sqrt(n)), and g = t + s t^2 / (3 sqrt(n)) + s^2 t^3 / (27 n) + s / (6 sqrt(n))
    removes from t what the skewness s of the differences does to its tails (Hall, Journal of the Royal
    Statistical Society B 54:221-228, 1992). The test is exact if differences are symmetric about 0. It is
    asymptotically right for any differences with mean 0, because t is studentised (Janssen, Statistics and
    Probability Letters 36:9-21, 1997). `benchmarks/studies/scoring/interval_coverage.py` shows its error
    rates by n, with and without g.

    Args:
        differences: float, n x k: n >= 1 patients, a test for each of the k columns. No NaN.
        flips: how many random patterns, drawn with a fixed seed, if n > EXACT_UP_TO.
        correct_skewness: False takes |t| itself.

    Returns:
        float, k, in (0, 1]: the share of all 2^n patterns whose statistic reaches the observed one, so at
        least 2 / 2^n, or (1 + count) / (1 + flips) of random ones (Phipson and Smyth, Statistical
        Applications in Genetics and Molecular Biology 9:39, 2010). 1 if all differences are 0.
    """
    scaled = _scaled(differences)
    n, columns = scaled.shape
    tried, reached, reach = 0, np.zeros(columns, int), None
    for signs in _blocks_of_signs(n, flips, max(1, _CELLS // max(n, columns))):
        statistics = _corrected_t(signs, scaled, correct_skewness)
        if reach is None:  # the first pattern is the observed one, and so always counts
            reach = statistics[0] * (1 - _ROUNDING) - _ROUNDING  # infinity stays infinite
        tried += len(signs)
        reached += (statistics >= reach).sum(axis=0)
    return reached / tried


def _scaled(differences: np.ndarray) -> np.ndarray:
    """The differences divided by their root mean square in each column, or as they are if all are 0."""
    largest = np.abs(differences).max(axis=0)  # first, so that no square overflows or vanishes
    scaled = differences / np.where(largest > 0, largest, 1.0)
    size = np.sqrt((scaled**2).mean(axis=0))
    return scaled / np.where(size > 0, size, 1.0)


def _corrected_t(signs: np.ndarray, scaled: np.ndarray, correct_skewness: bool) -> np.ndarray:
    """|g(t)|, or |t|, of each pattern of signs (patterns x n) and each column: patterns x k.

    Infinite where all values are equal and not 0.
    """
    n = len(scaled)
    mean, variance, cube = _central_moments(signs, scaled, correct_skewness)
    flat = variance <= _FLAT
    variance[flat] = 1.0
    t = mean * np.sqrt((n - 1) / variance)
    if correct_skewness:
        skew = cube / variance**1.5 / np.sqrt(n)
        t = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
    return np.where(flat, np.inf, np.abs(t))


def _central_moments(
    signs: np.ndarray, scaled: np.ndarray, with_cube: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and third central moment of the flipped values, patterns x k each."""
    n = len(scaled)
    mean = signs @ scaled / n
    variance = 1 - mean**2  # the mean square is 1, or all values and so the mean are 0
    cube = signs @ scaled**3 / n - 3 * mean + 2 * mean**3 if with_cube else np.zeros_like(mean)
    # Where the spread is small beside the mean, these differences cancel: compute from the values themselves.
    patterns, columns = np.nonzero(variance < 0.5)
    for start in range(0, len(patterns), block := max(1, _CELLS // n)):
        at = patterns[start : start + block], columns[start : start + block]
        values = signs[at[0]] * scaled.T[at[1]]
        centred = values - values.mean(axis=1, keepdims=True)
        centred -= centred.mean(axis=1, keepdims=True)  # removes what rounding left of the mean
        variance[at] = (centred**2).mean(axis=1)
        cube[at] = (centred**3).mean(axis=1)
    return mean, variance, cube


def _blocks_of_signs(n: int, flips: int, block: int) -> Iterator[np.ndarray]:
    """Patterns of +1 and -1, patterns x n a block; the very first has no flipped sign."""
    if n <= EXACT_UP_TO:
        # A pattern and its mirror have the same statistic, so only patterns whose last sign is + are tried.
        for start in range(0, 2 ** (n - 1), block):
            patterns = np.arange(start, min(start + block, 2 ** (n - 1)))
            yield 1.0 - 2.0 * (patterns[:, None] >> np.arange(n) & 1)
        return
    rng = np.random.default_rng(_SEED)
    yield np.ones((1, n))
    for start in range(0, flips, block):
        yield 1.0 - 2.0 * rng.integers(0, 2, (min(block, flips - start), n), dtype=np.int8)


def wilcoxon_p_value(differences: np.ndarray) -> float:
    """Return the two-sided p value of Wilcoxon's signed-rank test (Biometrics Bulletin 1:80-83, 1945).

    The null hypothesis is that each pair is exchangeable, so that differences are symmetric about 0. It is no
    test of the mean: it also rejects skewed differences of mean 0, and nearly always if there are many. Zeros
    are dropped, as Wilcoxon did and as `rank_biserial` does; p is 1 if all are 0. It is exact for up to 50
    untied differences. NaN isn't allowed.
    """
    apart = differences[differences != 0]
    return float(stats.wilcoxon(apart).pvalue) if len(apart) else 1.0


def rank_biserial(gains: np.ndarray) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby, Comprehensive Psychology 3:1, 2014).

    Gains (float, n, no NaN) say by how much the first of each pair is better, below 0 if it is worse. The
    correlation is (sum of ranks of gains - sum of ranks of losses) / sum of ranks, in [-1, 1]. Ranks are
    those of absolute values, zeros dropped, ties averaged. It is 0 if all are 0.
    """
    apart = gains[gains != 0]
    if not len(apart):
        return 0.0
    ranks = stats.rankdata(np.abs(apart))
    return float((ranks * np.sign(apart)).sum() / ranks.sum())


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p values for their number by Holm's method (Scandinavian Journal of Statistics 6:65-70, 1979).

    They are one family, without NaN, and keep their order. Rejecting those at or below alpha keeps the chance
    of any false alarm in the family at or below alpha.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected


@dataclass(frozen=True)
class RankComparison:
    """Approaches compared by their ranks (Demsar, Journal of Machine Learning Research 7:1-30, 2006)."""

    mean_ranks: np.ndarray  # float, k; 1 is best
    chi_square: float  # Friedman's statistic with k - 1 degrees of freedom, corrected for ties
    p_value: float  # of the null hypothesis that all approaches rank alike
    # Mean ranks further apart are different at alpha = 0.05 by Nemenyi's test, which allows for all pairs.
    critical_difference: float
    nemenyi_p: np.ndarray  # float, k x k, symmetric, 1 on the diagonal


def compare_ranks(scores: np.ndarray) -> RankComparison:
    """Compare approaches by Friedman's and Nemenyi's tests.

    Scores are float, n patients x k >= 3 approaches, without NaN. Higher is better; equal ones share their
    mean rank.
    """
    n, k = scores.shape
    mean_ranks = stats.rankdata(-scores, axis=1).mean(axis=0)
    error = np.sqrt(k * (k + 1) / (6 * n))
    apart = np.abs(mean_ranks[:, None] - mean_ranks) / error
    # Nemenyi's q is the studentised range of k means with infinite degrees of freedom over sqrt(2).
    nemenyi = np.clip(stats.studentized_range.sf(apart * np.sqrt(2), k, np.inf), 0.0, 1.0)
    critical = stats.studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2) * error
    tied = (scores == scores[:, :1]).all()
    chi_square, p_value = (0.0, 1.0) if tied else stats.friedmanchisquare(*scores.T)
    return RankComparison(mean_ranks, float(chi_square), float(p_value), float(critical), nemenyi)


def bootstrap_ranks(scores: np.ndarray, samples: int = RANK_SAMPLES) -> np.ndarray:
    """Rank approaches by their mean in each bootstrap sample of the patients.

    How far a ranking hangs on the patients that happened to be in the test set (Wiesenfarth et al.,
    Scientific Reports 11:2369, 2021: aggregate, then rank).

    Args:
        scores: float, n patients x k approaches, without NaN. Higher is better.
        samples: how many samples, drawn with a fixed seed.

    Returns:
        float, samples x k: 1 is best, equal means share their mean rank.
    """
    n = len(scores)
    drawn = np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=samples)
    means = np.round(drawn @ scores / n, _RANK_DECIMALS)
    return stats.rankdata(-means, axis=1)


def compute_kendall_tau(ranks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b (Biometrika 33:239-251, 1945) of each row of ranks with a reference.

    Ranks are float, rows x k, and the reference float, k. The result is float, rows, in [-1, 1]; NaN where a
    row or the reference is all ties.
    """
    first, second = np.triu_indices(ranks.shape[1], 1)
    signs = np.sign(ranks[:, first] - ranks[:, second])
    expected = np.sign(reference[first] - reference[second])
    untied = np.abs(signs).sum(axis=1) * np.abs(expected).sum()
    with np.errstate(invalid="ignore"):
        return signs @ expected / np.sqrt(untied)
