import numpy as np
import pandas as pd
import pytest

from lungseg.scoring.statistics import bootstrap_t_interval, summarise


def test_interval_of_symmetric_values_is_near_students():
    values = np.random.default_rng(1).normal(0.9, 0.02, 200)
    low, high = bootstrap_t_interval(values)
    error = values.std(ddof=1) / np.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.972 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.972 * error, abs=0.2 * error)


def test_interval_of_scores_with_a_low_tail_reaches_further_down():
    values = np.random.default_rng(2).beta(12, 1.0, 60)
    low, high = bootstrap_t_interval(values, bounds=(0, 1))
    assert values.mean() - low > high - values.mean() > 0
    assert high <= 1


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    mean = 40 / 41.7
    hits = 0
    for _ in range(200):
        low, high = bootstrap_t_interval(rng.beta(40, 1.7, 60), resamples=499)
        hits += low <= mean <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_interval_of_equal_or_too_few_values():
    assert bootstrap_t_interval(np.full(9, 0.5)) == (0.5, 0.5)
    assert np.isnan(bootstrap_t_interval(np.array([0.5, 0.6]))).all()


def frame(rows: list[tuple]) -> pd.DataFrame:
    columns = ["approach", "seed", "patient", "image_id", "dice", "tp", "fp", "fn"]
    values = pd.DataFrame(rows, columns=columns).assign(dataset="d")
    for metric in ("iou", "accuracy", "precision", "recall", "specificity"):
        values[metric] = values["dice"]
    return values


def test_seeds_are_averaged_per_image_and_images_per_patient():
    rows = [
        ("a", 0, "p1", "i1", 0.8, 8, 2, 2),
        ("a", 1, "p1", "i1", 0.6, 6, 4, 4),
        ("a", 0, "p1", "i2", 0.5, 5, 5, 5),
        ("a", 1, "p1", "i2", 0.5, 5, 5, 5),
        ("a", 0, "p2", "i3", 1.0, 9, 0, 0),
        ("a", 1, "p2", "i3", 1.0, 9, 0, 0),
    ]
    found = pd.DataFrame(summarise(frame(rows))).set_index("metric")
    dice = found.loc["dice"]
    assert dice["n"] == 2
    assert dice["value"] == pytest.approx((0.6 + 1.0) / 2)  # p1: mean of .7 and .5
    assert dice["seeds"] == 2
    assert dice["seed_sd"] == pytest.approx(np.std([2.3 / 3, 2.1 / 3], ddof=1))
    first, second = 2 * 22 / (2 * 22 + 14), 2 * 20 / (2 * 20 + 18)
    assert found.loc["f1", "value"] == pytest.approx((first + second) / 2)
    assert found.loc["f1", "kind"] == "pooled"
