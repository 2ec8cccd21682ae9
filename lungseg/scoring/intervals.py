"""Confidence intervals of means over patients by the bootstrap-t, which suits skewed scores near 1."""

from __future__ import annotations

import numpy as np

RESAMPLES = 4999  # R + 1 = 5000 makes the 2.5 % points whole numbers of resamples
CONFIDENCE = 0.95

_SEED = 20_260_101
_CELLS = 4_000_000  # in a block of resamples x patients: 32 MB of float64
_NO_SPREAD = 1e-12  # a variance or standard deviation below this share is rounding error


def bootstrap_t_intervals(values: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Return 95 % bootstrap-t intervals of means (Efron and Tibshirani 1993, chapter 12.5).

    The distribution of t = (mean - true mean) / standard error is taken from resamples, each studentised by
    its own standard error. Its quantiles are the (R + 1) p-th smallest of R (Davison and Hinkley 1997,
    chapter 5.2).

    Args:
        values: float, n x k: n patients, an interval for each of the k columns. No NaN.
        resamples: R, drawn with a fixed seed: the same values give the same interval.

    Returns:
        float, k x 2: low and high. Equal to the mean where all values are equal. NaN where no interval
        exists: with fewer than three values, or with so many equal ones that more resamples than a tail
        holds consist of one repeated value and have no standard error (three patients, or twenty of whom
        one differs).
    """
    values = np.asarray(values, float)
    n, columns = values.shape
    if n < 3:
        return np.full((columns, 2), np.nan)
    mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
    intervals = np.column_stack([mean, mean])
    varied = sd > _NO_SPREAD * np.abs(values).max(axis=0)
    if varied.any():
        mean, sd = mean[varied], sd[varied]
        pivots = _pivots((values[:, varied] - mean) / sd, resamples)
        low_pivot, high_pivot = _tails(pivots, (1 - CONFIDENCE) / 2)
        error = sd / np.sqrt(n)
        intervals[varied] = np.column_stack([mean - high_pivot * error, mean - low_pivot * error])
    return intervals


def resample_moments(values: np.ndarray, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the mean square of each bootstrap resample of each column.

    A resample is a row of counts of how often each patient was drawn, with a fixed seed. So all columns are
    resampled by two matrix products. Values (float, n x k) should be centred, or the mean square holds little
    of the variance. Means and mean squares are float64, resamples x k.
    """
    n, columns = values.shape
    rng = np.random.default_rng(_SEED)
    means, squares = np.empty((2, resamples, columns))
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        rows = slice(start, min(start + block, resamples))
        shares = _counts(rng, n, rows.stop - rows.start) / n
        means[rows] = shares @ values
        squares[rows] = shares @ values**2
    return means, squares


def _counts(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def _pivots(standardised: np.ndarray, resamples: int) -> np.ndarray:
    """t of each resample, resamples x k, of columns with mean 0; NaN where a resample has no spread."""
    n = len(standardised)
    means, squares = resample_moments(standardised, resamples)
    variances = squares - means**2
    variances[variances < _NO_SPREAD * n] = np.nan
    return means * np.sqrt((n - 1) / variances)


def _tails(pivots: np.ndarray, tail: float) -> np.ndarray:
    """The `tail` and 1 - `tail` quantiles of each column, 2 x k; NaN where more than `tail` of it are NaN."""
    missing = np.isnan(pivots).mean(axis=0)
    points = [tail, 1 - tail]
    found = np.full((2, pivots.shape[1]), np.nan)
    whole = missing == 0
    found[:, whole] = np.quantile(pivots[:, whole], points, axis=0, method="weibull")
    for column in np.flatnonzero((missing > 0) & (missing <= tail)):
        found[:, column] = np.nanquantile(pivots[:, column], points, method="weibull")
    return found
