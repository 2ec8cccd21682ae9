import numpy as np
import pytest
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from lungseg.scoring.comparisons import (
    compare_ranks,
    holm,
    rank_biserial,
    sign_flip_p_values,
    wilcoxon_p_value,
)


def one(differences: list[float] | np.ndarray) -> float:
    return sign_flip_p_values(np.asarray(differences, float)[:, None])[0]


def studentised(values: np.ndarray, axis: int) -> np.ndarray:
    n = values.shape[axis]
    return values.mean(axis=axis) / (values.std(axis=axis, ddof=1) / np.sqrt(n))


def halls(values: np.ndarray, axis: int) -> np.ndarray:
    """Hall's transformation of t: monotone, and so a perfect cube but for constants."""
    n, t, skew = values.shape[axis], studentised(values, axis), stats.skew(values, axis)
    cube = (1 + skew * t / (3 * np.sqrt(n))) ** 3 - 1
    return cube * np.sqrt(n) / skew + skew / (6 * np.sqrt(n))


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 2, 3], 2 / 8),  # only all plus and all minus reach a sum of 6
        ([1, 2, -3], 1.0),  # the sum is 0: all reach it
        ([1, 2, 3, -1], 6 / 16),  # |sum| of 5 or more: 7 and 5 and 5, and the same below 0
        ([2], 1.0),
        ([1, 1, 1, 1, 1], 2 / 32),  # no spread: t is infinite, as with all minus
        ([0, 0, 0], 1.0),
        (np.zeros(50), 1.0),
        (np.arange(1, 14), 2 / 2**13),
    ],
)
def test_sign_flips_by_hand(differences, p_value):
    assert one(differences) == pytest.approx(p_value, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("statistic", "corrected"), [(studentised, False), (halls, True)])
def test_sign_flips_are_scipys_permutation_test(statistic, corrected, seed):
    differences = np.random.default_rng(seed).exponential(size=9) - 0.5
    peer = stats.permutation_test(
        (differences,),
        lambda values, axis: np.abs(statistic(values, axis)),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",  # |t| has both sides already
    )
    p_value = sign_flip_p_values(differences[:, None], correct_skewness=corrected)[0]
    assert p_value == pytest.approx(peer.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [14, 200, 1000])
def test_random_flips_come_near_the_t_test_of_normal_differences(n):
    differences = np.random.default_rng(n).normal(1.5 / np.sqrt(n), 1, n)
    assert one(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_random_flips_are_the_same_each_time_and_never_give_zero():
    differences = np.random.default_rng(0).normal(5, 1, (300, 2))
    first = sign_flip_p_values(differences)
    assert first.tolist() == [1 / 10_000, 1 / 10_000]
    mixed = np.random.default_rng(1).normal(0, 1, (300, 3))
    together = sign_flip_p_values(mixed)
    assert together == pytest.approx([one(column) for column in mixed.T])
    assert together == pytest.approx(sign_flip_p_values(-mixed))


def test_size_of_the_differences_does_not_matter():
    differences = np.array([0.1, 0.2, 0.3, -0.1, 0.7, 0.7, -0.3, 0.4])  # many sums are equal but for rounding
    exact = one(np.round(10 * differences))
    assert one(differences) == exact == one(1e-9 * differences)


def test_false_alarms_under_skewed_differences_of_mean_zero():
    few = np.random.default_rng(2).exponential(size=(28, 2000)) - 1
    assert 0.04 <= (sign_flip_p_values(few, flips=999) <= 0.05).mean() <= 0.06
    assert (sign_flip_p_values(few, flips=999, correct_skewness=False) <= 0.05).mean() > 0.065
    many = np.random.default_rng(3).exponential(size=(704, 300)) - 1
    assert 0.02 <= (sign_flip_p_values(many, flips=999) <= 0.05).mean() <= 0.08
    assert np.mean([wilcoxon_p_value(column) <= 0.05 for column in many.T]) > 0.95


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 2, 3, 4, 5], 2 / 32),
        ([0, 1, 2, 3, 4, 5], 2 / 32),  # a zero says nothing
        ([1, -2, 3, 4, 5], 2 * 3 / 32),  # W- = 2: {}, {1}, {2}
        ([0, 0], 1.0),
        ([0.3], 1.0),
    ],
)
def test_wilcoxon_by_hand(differences, p_value):
    assert wilcoxon_p_value(np.array(differences, float)) == pytest.approx(p_value)


@pytest.mark.parametrize(
    ("gains", "effect"),
    [
        ([1, -2, 3, 0], (1 - 2 + 3) / 6),
        ([1, 1, -1], (2 + 2 - 2) / 6),
        ([1, 2], 1),
        ([-0.1, -0.2, -0.3], -1),
        ([0, 0], 0),
    ],
)
def test_rank_biserial_by_hand(gains, effect):
    assert rank_biserial(np.array(gains, float)) == pytest.approx(effect)


def test_rank_biserial_is_wilcoxons_statistic_rescaled():
    gains = np.random.default_rng(3).normal(0.2, 1, 60).round(1)
    left = gains[gains != 0]
    positive = stats.wilcoxon(left, alternative="greater").statistic  # sum of the ranks of gains
    assert rank_biserial(gains) == pytest.approx(2 * positive / (len(left) * (len(left) + 1) / 2) - 1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([0.03]) == pytest.approx([0.03])
    assert holm([]).tolist() == []


# Area under the curve of C4.5 with and without two parameters tuned: table 6 of Demsar (2006).
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.975, 0.974],  # he prints .975 twice and ranks them 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_ranks_of_demsars_example():
    found = compare_ranks(DEMSAR)
    assert found.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    # He prints 9.28, without the correction for ties, which is 1 - sum(t^3 - t) / (n (k^3 - k)).
    ties = 1 - (3 * 6 + 60) / (14 * 60)
    assert found.chi_square == pytest.approx(9.28 / ties, abs=0.01)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.chi_square, 3))


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_demsars_table(k, q):
    scores = np.random.default_rng(k).normal(size=(30, k))
    expected = q * np.sqrt(k * (k + 1) / (6 * 30))
    assert compare_ranks(scores).critical_difference == pytest.approx(expected, rel=3e-4)


def test_nemenyi_agrees_with_scikit_posthocs():
    scores = np.random.default_rng(4).beta(40, 1.7, (60, 5)) - [0, 0, 0.01, 0.02, 0.02]
    found = compare_ranks(scores)
    np.testing.assert_allclose(found.nemenyi_p, posthoc_nemenyi_friedman(scores), atol=1e-6)
    critical = np.abs(found.mean_ranks[:, None] - found.mean_ranks) > found.critical_difference
    np.testing.assert_array_equal(critical, found.nemenyi_p < 0.05)
    assert 0 < critical.sum() < 20


def test_ranks_of_approaches_that_are_all_equal():
    found = compare_ranks(np.full((7, 3), 0.5))
    assert (found.chi_square, found.p_value) == (0, 1)
    assert found.mean_ranks.tolist() == [2, 2, 2]
    assert found.nemenyi_p == pytest.approx(np.ones((3, 3)))
