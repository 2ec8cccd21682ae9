"""Measure whether a map's values are probabilities: Brier score, and bins for a reliability diagram.

Brier, Monthly Weather Review 78:1 (1950). Reliability diagrams as in Niculescu-Mizil and Caruana, ICML
(2005), of the probability of lung itself, not of the more certain class. Bins of equal width, as for the
expected calibration error of Naeini et al., AAAI (2015).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def brier_score(probability: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean squared difference between map and truth over pixels: 0 is best, 1 is worst.

    The map is float, H x W, in [0, 1], and the truth bool, H x W; anything else is a ValueError.
    """
    _check_map(probability, truth)
    difference = np.subtract(probability, truth, dtype=np.float64).ravel()
    return float(np.dot(difference, difference) / difference.size)


def reliability_bins(
    probability: np.ndarray, truth: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pixels of one image by their probability, for a reliability diagram.

    Map and truth are as in `brier_score`. Bins have equal width; each holds its lower edge, and the last one
    1. Add the returned arrays up over images.

    Returns:
        pixels (int64), sum of their probabilities (float64) and lung pixels by the truth (int64), each of
        length `bins`.

    Raises:
        ValueError: as `brier_score`, or less than one bin.
    """
    _check_map(probability, truth)
    if bins < 1:
        raise ValueError(f"there must be at least one bin, got {bins}")
    values = probability.ravel().astype(np.float64)
    # Edges are searched, because a product such as 0.57 * 100 may round into the bin below.
    index = np.searchsorted(np.arange(1, bins) / bins, values, side="right")
    counts = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=values, minlength=bins)
    lung = np.bincount(index[truth.ravel()], minlength=bins)
    return counts.astype(np.int64), sums, lung.astype(np.int64)


def calibration_rows(counts: np.ndarray, sums: np.ndarray, lung: np.ndarray) -> list[dict[str, Any]]:
    """Return what `reliability_bins` counted as rows of calibration.csv; NaN where a bin is empty."""
    bins = len(counts)
    pixels = np.where(counts > 0, counts, np.nan)
    mean, share = sums / pixels, lung / pixels
    return [
        {
            "bin": i,
            "low": i / bins,
            "high": (i + 1) / bins,
            "count": int(counts[i]),
            "mean_probability": float(mean[i]),
            "lung_share": float(share[i]),
        }
        for i in range(bins)
    ]


def _check_map(probability: np.ndarray, truth: np.ndarray) -> None:
    """Raise ValueError unless the map is float in [0, 1], the truth bool, of one shape, and not empty."""
    if not np.issubdtype(probability.dtype, np.floating) or truth.dtype != bool:
        raise ValueError(f"a map must be float and the truth bool, got {probability.dtype} and {truth.dtype}")
    if probability.shape != truth.shape:
        raise ValueError(
            f"a map and the truth must have one shape, got {probability.shape} and {truth.shape}"
        )
    if probability.size == 0:
        raise ValueError("a map must have at least one pixel")
    low, high = probability.min(), probability.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ValueError(f"a map must lie in [0, 1], got {low} to {high}")
