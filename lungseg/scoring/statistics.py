"""From scores of images to figures of approaches, with intervals. The unit is the patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lungseg.scoring.metrics import pooled_f1

MEAN_METRICS = ("dice", "iou", "accuracy", "precision", "recall", "specificity")


def bootstrap_t_interval(
    values: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 4999,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Bootstrap-t interval of the mean (Efron and Tibshirani 1993, chapter 12.5), which follows skewness.

    Args:
        values: one number a patient, n >= 1.
        confidence: share of intervals that should hold the true mean.
        resamples: drawn with a fixed seed, so that the same values give the same interval.
        bounds: the range of the metric; the interval is cut to it.

    Returns:
        (low, high); (nan, nan) with fewer than three values.
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 3:
        return float("nan"), float("nan")
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return float(mean), float(mean)
    drawn = values[np.random.default_rng(20_260_101).integers(0, n, (resamples, n))]
    errors = drawn.std(axis=1, ddof=1) / np.sqrt(n)
    usable = errors > 0  # a resample of one value repeated has no studentised mean
    pivots = (drawn.mean(axis=1)[usable] - mean) / errors[usable]
    tail = (1 - confidence) / 2
    low_pivot, high_pivot = np.quantile(pivots, [tail, 1 - tail])
    low, high = mean - high_pivot * error, mean - low_pivot * error
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def summarise(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of statistics.csv from the rows of scores.csv.

    Seeds (and draws) are averaged per image and images per patient before anything else; `seed_sd` is the
    spread of the seeds' own means. Kind "pooled" is the F1 of all pixels taken together.
    """
    rows = []
    for (dataset, approach), part in scores.groupby(["dataset", "approach"], sort=False):
        key = {"dataset": dataset, "approach": approach, "seeds": part["seed"].nunique()}
        rows += [{**key, **_mean_row(part, metric)} for metric in MEAN_METRICS]
        rows.append({**key, **_pooled_row(part)})
    return rows


def _mean_row(part: pd.DataFrame, metric: str) -> dict[str, Any]:
    by_image = part.groupby(["patient", "image_id"])[metric].mean()
    by_patient = by_image.groupby("patient").mean().to_numpy()
    low, high = bootstrap_t_interval(by_patient, bounds=(0.0, 1.0))
    return {
        "metric": metric,
        "kind": "mean",
        "n": len(by_patient),
        "value": by_patient.mean(),
        "low": low,
        "high": high,
        "median": np.median(by_patient),
        "sd": by_patient.std(ddof=1) if len(by_patient) > 1 else np.nan,
        "seed_sd": _seed_sd(part.groupby("seed")[metric].mean()),
    }


def _pooled_row(part: pd.DataFrame) -> dict[str, Any]:
    by_seed = part.groupby("seed")[["tp", "fp", "fn"]].sum()
    values = pd.Series([pooled_f1(*counts) for counts in by_seed.to_numpy()])
    return {
        "metric": "f1",
        "kind": "pooled",
        "n": part["image_id"].nunique(),
        "value": values.mean(),
        "seed_sd": _seed_sd(values),
    }


def _seed_sd(by_seed: pd.Series) -> float:
    return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")
