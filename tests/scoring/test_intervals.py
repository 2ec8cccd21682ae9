import numpy as np
import pytest

from lungseg.scoring.intervals import bootstrap_t_intervals, resample_moments


def interval(values: np.ndarray, **options) -> np.ndarray:
    """The interval of one mean."""
    return bootstrap_t_intervals(values[:, None], **options)[0]


def by_the_book(values: np.ndarray, resamples: int) -> tuple[float, float]:
    """Bootstrap-t resample by resample, for the same draws of patients."""
    n = len(values)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(n)
    pivots = []
    for drawn in np.random.default_rng(20_260_101).integers(0, n, (resamples, n)):
        resample = values[drawn]
        pivots.append((resample.mean() - mean) / (resample.std(ddof=1) / np.sqrt(n)))
    pivots.sort()
    tail = round(0.025 * (resamples + 1))
    return mean - pivots[-tail] * error, mean - pivots[tail - 1] * error


@pytest.mark.parametrize(("n", "resamples"), [(5, 399), (28, 4999), (141, 999), (2500, 1999)])
def test_matrix_products_give_the_interval_of_a_plain_loop(n, resamples):
    # 5 patients: resamples of one repeated value are rare but there (of 399 none); 2500: more than one block.
    values = np.random.default_rng(n).beta(40, 1.7, n)
    found = interval(values, resamples=resamples)
    assert found == pytest.approx(by_the_book(values, resamples), abs=1e-9)


def test_columns_are_intervals_of_their_own():
    values = np.random.default_rng(5).beta(12, 1.7, (40, 3)) * [1, 100, 0.01]
    values[:, 1] = 0.7
    together = bootstrap_t_intervals(values)
    alone = [interval(column) for column in values.T]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert together[1] == pytest.approx([0.7, 0.7], abs=1e-12)


def test_moments_are_those_of_resamples():
    values = np.random.default_rng(6).normal(size=(9, 2))
    means, squares = resample_moments(values, 50)
    drawn = values[np.random.default_rng(20_260_101).integers(0, 9, (50, 9))]
    np.testing.assert_allclose(means, drawn.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(squares, (drawn**2).mean(axis=1), atol=1e-12)


def test_interval_of_symmetric_values_is_near_students():
    values = np.random.default_rng(1).normal(0.9, 0.02, 200)
    low, high = interval(values)
    error = values.std(ddof=1) / np.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.972 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.972 * error, abs=0.2 * error)


def test_interval_of_scores_with_a_low_tail_reaches_further_down():
    values = np.random.default_rng(2).beta(12, 1.0, 60)
    low, high = interval(values)
    assert values.mean() - low > high - values.mean() > 0


@pytest.mark.parametrize(("n", "resamples"), [(28, 499), (141, 499)])
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(n, resamples):
    values = np.random.default_rng(3).beta(40, 1.7, (n, 1000))
    low, high = bootstrap_t_intervals(values, resamples=resamples).T
    assert 0.93 <= ((low <= 40 / 41.7) & (high >= 40 / 41.7)).mean() <= 0.97


def test_equal_values_have_an_interval_without_width():
    assert interval(np.full(9, 0.1)) == pytest.approx((0.1, 0.1), abs=1e-15)
    assert interval(np.zeros(9)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [0.5, 0.6],
        [0.5, 0.6, 0.7],  # a ninth of the resamples is one value three times
        [1.0] * 27 + [0.2],  # a third of the resamples lacks the one that differs
    ],
)
def test_no_interval_is_better_than_a_wrong_one(values):
    assert np.isnan(interval(np.array(values))).all()


def test_few_resamples_without_spread_are_left_out():
    low, high = interval(np.array([0.5, 0.6, 0.7, 0.9]))  # 1 in 64
    assert low < 0.675 < high
