"""Tests of paired differences and of ranks, each with its null named, and the size of an effect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

FLIPS = 9999
EXACT_UP_TO = 13  # 2^13 = 8192 sign patterns are fewer than FLIPS: all of them are tried

_SEED = 20_260_102
_CELLS = 4_000_000  # of a block of flips x patients (or tests, if they are more): 32 MB of float64
_ROUNDING = 1e-9  # statistics that differ by less are equal


def sign_flip_p_values(
    differences: np.ndarray, flips: int = FLIPS, correct_skewness: bool = True
) -> np.ndarray:
    """Two-sided p of the studentised sign-flip permutation test, its null being that the mean is 0.

    The statistic, computed anew for each pattern of flipped signs, is |g(t)|: t = mean / (sd / sqrt(n)), and
    g = t + s t^2 / (3 sqrt(n)) + s^2 t^3 / (27 n) + s / (6 sqrt(n)) removes from it what the skewness s of
    the differences does to its tails (Hall, Journal of the Royal Statistical Society B 54:221-228, 1992).
    Exact if differences are symmetric about 0; asymptotically right for any with mean 0, as t is studentised
    (Janssen, Statistics and Probability Letters 36:9-21, 1997). How far off it is at some n, with and
    without g, `benchmarks/interval_coverage.py` shows.

    Args:
        differences: float, n x k: n >= 1 patients, a test for each of the k columns. No NaN.
        flips: how many random patterns, drawn with a fixed seed, if n > EXACT_UP_TO.
        correct_skewness: False takes |t| itself.

    Returns:
        float, k, in (0, 1]: the share of all 2^n patterns whose statistic reaches the observed one, or
        (1 + count) / (1 + flips) of random ones (Phipson and Smyth, Statistical Applications in Genetics and
        Molecular Biology 9:39, 2010). 1 if all differences are 0.
    """
    n, columns = differences.shape
    size = np.sqrt((differences**2).mean(axis=0))
    scaled = differences / np.where(size > 0, size, 1.0)
    cubes = scaled**3 if correct_skewness else None

    def statistic(signs: np.ndarray) -> np.ndarray:
        return _corrected_t(signs @ scaled / n, None if cubes is None else signs @ cubes / n, n)

    observed = statistic(np.ones((1, n)))
    reach = observed * (1 - _ROUNDING) - _ROUNDING  # infinite ones stay so
    exact = n <= EXACT_UP_TO
    patterns = 2**n if exact else flips
    rng = np.random.default_rng(_SEED)
    reached = np.zeros(columns, int)
    block = max(1, _CELLS // max(n, columns))
    for start in range(0, patterns, block):
        stop = min(start + block, patterns)
        signs = _all_signs(start, stop, n) if exact else _random_signs(rng, stop - start, n)
        reached += (statistic(signs) >= reach).sum(axis=0)
    return reached / patterns if exact else (1 + reached) / (1 + patterns)


def _corrected_t(mean: np.ndarray, cube: np.ndarray | None, n: int) -> np.ndarray:
    """|g(t)|, or |t| without `cube`, from means of values and of their cubes; the mean square is 1.

    Infinite where values have no spread, being equal and not 0.
    """
    variance = 1 - mean**2
    flat = variance < _ROUNDING
    variance[flat] = 1.0
    t = mean * np.sqrt((n - 1) / variance)
    if cube is not None:
        skew = (cube - 3 * mean + 2 * mean**3) / variance**1.5 / np.sqrt(n)
        t = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
    return np.where(flat, np.inf, np.abs(t))


def _all_signs(start: int, stop: int, n: int) -> np.ndarray:
    bits = np.arange(start, stop)[:, None] >> np.arange(n) & 1
    return 1.0 - 2.0 * bits


def _random_signs(rng: np.random.Generator, flips: int, n: int) -> np.ndarray:
    return 1.0 - 2.0 * rng.integers(0, 2, (flips, n), dtype=np.int8)


def wilcoxon_p_value(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (Biometrics Bulletin 1:80-83, 1945).

    Its null is that each pair is exchangeable, so that differences are symmetric about 0. It is no test of
    the mean: with skewed differences of mean 0 it rejects, and nearly always if there are many. Zeros are
    dropped, as Wilcoxon did and as `rank_biserial` does; the p is exact for up to 50 untied differences.

    Args:
        differences: float, n. No NaN.

    Returns:
        p in (0, 1]; 1 if all differences are 0.
    """
    apart = differences[differences != 0]
    return float(stats.wilcoxon(apart).pvalue) if len(apart) else 1.0


def rank_biserial(gains: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby, Comprehensive Psychology 3:1, 2014).

    Args:
        gains: float, n: by how much the first of each pair is better, below 0 if it is worse. No NaN.

    Returns:
        (sum of ranks of gains - sum of ranks of losses) / sum of ranks, in [-1, 1]; ranks are those of
        absolute values, zeros dropped, ties averaged. 0 if all are 0.
    """
    apart = gains[gains != 0]
    if not len(apart):
        return 0.0
    ranks = stats.rankdata(np.abs(apart))
    return float((ranks * np.sign(apart)).sum() / ranks.sum())


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 6:65-70, 1979).

    Args:
        p_values: float, m, one family. No NaN.

    Returns:
        float, m, in the order given: rejecting those at or below alpha keeps the chance of any false alarm
        in the family at or below alpha.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected


@dataclass(frozen=True)
class RankComparison:
    """Approaches compared by their ranks (Demsar, Journal of Machine Learning Research 7:1-30, 2006).

    Attributes:
        mean_ranks: float, k; 1 is best.
        chi_square: Friedman's statistic with k - 1 degrees of freedom, corrected for ties.
        p_value: of the null that all approaches rank alike.
        critical_difference: two mean ranks further apart differ at alpha = 0.05 by Nemenyi's test, which
            allows for all pairs.
        nemenyi_p: float, k x k, symmetric, 1 on the diagonal.
    """

    mean_ranks: np.ndarray
    chi_square: float
    p_value: float
    critical_difference: float
    nemenyi_p: np.ndarray


def compare_ranks(scores: np.ndarray) -> RankComparison:
    """Friedman's and Nemenyi's tests.

    Args:
        scores: float, n patients x k >= 3 approaches; higher is better, equal ones share their mean rank.
            No NaN.
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
