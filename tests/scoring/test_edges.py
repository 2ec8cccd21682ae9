"""Statistics with few patients, no spread, ties, values of 0 and 1: against slow independent computations."""

from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lungseg.results import SCORE_COLUMNS
from lungseg.scoring import statistics
from lungseg.scoring.calibration import brier_score, calibration_rows, reliability_bins
from lungseg.scoring.comparisons import compare_ranks, holm, rank_biserial, wilcoxon_p_value
from lungseg.scoring.intervals import bootstrap_t_intervals
from lungseg.scoring.metrics import score_map, score_mask
from lungseg.scoring.overlap import best_threshold, binarise, confusion, image_dice
from lungseg.scoring.statistics import BOUNDS, summarise

# Scores as they are at the edges: a miss, a perfect mask, ties, and neighbours that differ in the last digit.
EDGES = st.sampled_from([0.0, 1.0, 0.5, 0.95, 0.95 + 1e-12, 0.9499999, 1 - 1e-9])
SCORES = st.lists(st.one_of(EDGES, st.floats(0, 1, allow_subnormal=False)), min_size=1, max_size=15)
GAINS = st.lists(
    st.one_of(st.just(0.0), st.sampled_from([-0.1, 0.1, -1.0, 1.0]), st.floats(-1, 1, allow_subnormal=False)),
    min_size=1,
    max_size=12,
)
MASKS = st.integers(1, 6).flatmap(
    lambda side: st.lists(st.lists(st.booleans(), min_size=side, max_size=side), min_size=1, max_size=6).map(
        lambda rows: np.array(rows, bool)
    )
)


@settings(max_examples=60)
@given(SCORES)
def test_an_interval_holds_its_mean_or_does_not_exist(values):
    ((low, high),) = bootstrap_t_intervals(np.array(values)[:, None], resamples=199)
    mean = np.mean(values)
    assert np.isnan(low) == np.isnan(high)
    if len(values) < 3:
        assert np.isnan(low)
    elif np.ptp(values) == 0:
        assert low == high == pytest.approx(mean)
    elif not np.isnan(low):
        assert low <= mean <= high


@settings(max_examples=60)
@given(SCORES, st.sampled_from([1e-6, 3.0, 1e6]), st.floats(-10, 10))
def test_an_interval_moves_with_the_scale_and_the_place_of_its_values(values, scale, shift):
    if 0 < np.ptp(values) < 1e-6:  # a shift would round such a spread away
        return
    plain = bootstrap_t_intervals(np.array(values)[:, None], resamples=199)[0]
    moved = bootstrap_t_intervals((np.array(values) * scale + shift)[:, None], resamples=199)[0]
    assert moved == pytest.approx(plain * scale + shift, rel=1e-5, abs=1e-6 * scale, nan_ok=True)


@settings(max_examples=100)
@given(GAINS)
def test_wilcoxon_is_the_share_of_sign_patterns_of_the_ranks(gains):
    apart = np.array([gain for gain in gains if gain])
    if not len(apart):
        assert wilcoxon_p_value(np.array(gains)) == 1
        return
    p_value = wilcoxon_p_value(np.array(gains))
    assert 0 < p_value <= 1
    if len(set(np.abs(apart))) < len(apart):
        return  # ties: scipy takes another null distribution than all patterns of the mid-ranks
    ranks = stats.rankdata(np.abs(apart))
    sums = np.array([np.dot(signs, ranks) for signs in product((-1, 1), repeat=len(apart))])
    observed = np.dot(np.sign(apart), ranks)
    assert p_value == pytest.approx((np.abs(sums) >= abs(observed) - 1e-9).mean())


@settings(max_examples=100)
@given(GAINS)
def test_rank_biserial_counts_pairs_of_averages(gains):
    """Walsh averages: the share of sums of two gains above 0 minus that below, where no two are tied."""
    effect = rank_biserial(np.array(gains))
    assert -1 <= effect <= 1
    assert rank_biserial(-np.array(gains)) == pytest.approx(-effect)
    apart = [gain for gain in gains if gain]
    if len({abs(gain) for gain in apart}) == len(apart) > 0:
        sums = [apart[i] + apart[j] for i in range(len(apart)) for j in range(i + 1)]
        assert effect == pytest.approx(np.sign(sums).mean())


@settings(max_examples=100)
@given(st.lists(st.floats(2**-14, 1), min_size=0, max_size=15))
def test_holm_is_the_largest_of_the_steps_up_to_each(p_values):
    corrected = holm(np.array(p_values))
    for value, found in zip(p_values, corrected, strict=True):
        steps = [
            min(1.0, sum(other >= step for other in p_values) * step) for step in p_values if step <= value
        ]
        assert found == pytest.approx(max(steps))


@settings(max_examples=60)
@given(st.integers(1, 15).flatmap(lambda n: st.lists(st.tuples(EDGES, EDGES, EDGES), min_size=n, max_size=n)))
def test_ranks_and_their_tests_exist_for_any_scores(rows):
    scores = np.array(rows)
    found = compare_ranks(scores)
    slow = [
        [1 + sum(other > value for other in row) + (row.count(value) - 1) / 2 for value in row]
        for row in map(list, rows)
    ]
    assert found.mean_ranks == pytest.approx(np.mean(slow, axis=0))
    assert found.chi_square >= -1e-9
    assert 0 <= found.p_value <= 1
    assert ((found.nemenyi_p >= 0) & (found.nemenyi_p <= 1)).all()
    assert (np.diag(found.nemenyi_p) == 1).all()


@settings(max_examples=100)
@given(MASKS, st.data())
def test_scores_of_masks_are_those_of_sets_of_pixels(truth, data):
    flat = data.draw(st.lists(st.booleans(), min_size=truth.size, max_size=truth.size))
    prediction = np.array(flat).reshape(truth.shape)
    found = score_mask(prediction, truth)
    own, true = ({tuple(at) for at in np.argwhere(mask)} for mask in (prediction, truth))
    assert found["dice"] == pytest.approx(2 * len(own & true) / (len(own) + len(true)) if own or true else 1)
    assert found["iou"] == pytest.approx(len(own & true) / len(own | true) if own | true else 1)
    diagonal = np.hypot(*truth.shape)
    if not own and not true:
        assert found["hausdorff"] == found["hd95"] == found["assd"] == 0
    elif not own or not true:
        assert found["hausdorff"] == found["hd95"] == found["assd"] == pytest.approx(diagonal)
    else:
        assert 0 <= found["assd"] <= found["hausdorff"] <= diagonal
        assert found["hd95"] <= found["hausdorff"]
    for name, value in found.items():
        if name in BOUNDS and name != "area_error":
            low, high = BOUNDS[name]
            assert np.isnan(value) or low <= value <= high, name
    for name in ("dice_left", "dice_right"):
        assert true or np.isnan(found[name])


@settings(max_examples=100)
@given(MASKS, st.data())
def test_calibration_counts_each_pixel_once_also_with_one_class_alone(truth, data):
    edges = st.sampled_from([0.0, 1.0, 0.1, 0.3, 0.5, 0.7, float(np.float32(0.7)), 0.9999999])
    values = data.draw(st.lists(st.one_of(edges, st.floats(0, 1)), min_size=truth.size, max_size=truth.size))
    maps = np.array(values).reshape(truth.shape)
    rows = calibration_rows(*reliability_bins(maps, truth))
    for number, row in enumerate(rows):
        # Tenths as they are written, so that the edge itself is exact.
        inside = (maps >= number / 10) & ((maps < (number + 1) / 10) | (number == 9))
        assert row["count"] == inside.sum()
        if inside.any():
            assert row["mean_probability"] == pytest.approx(maps[inside].mean())
            assert row["lung_share"] == pytest.approx(truth[inside].mean())
        else:
            assert np.isnan(row["mean_probability"])
            assert np.isnan(row["lung_share"])
    assert brier_score(maps, truth) == pytest.approx(sum((maps.ravel() - truth.ravel()) ** 2) / maps.size)


@settings(max_examples=40)
@given(st.lists(MASKS, min_size=1, max_size=4), st.data())
def test_the_best_threshold_is_one_of_those_with_the_highest_mean_dice(truths, data):
    maps = [
        np.array(
            data.draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=t.size, max_size=t.size))
        ).reshape(t.shape)
        for t in truths
    ]
    chosen = best_threshold(iter(maps), iter(truths))
    assert 0 < chosen < 1
    best = max(np.mean(image_dice(maps, truths, threshold)) for threshold in (0.1, 0.3, 0.6, 0.9))
    assert np.mean(image_dice(maps, truths, chosen)) >= best - 1e-9
    counts = confusion(binarise(maps[0], chosen), truths[0])
    assert sum(counts.values()) == truths[0].size


@pytest.fixture(scope="module")
def few_resamples():
    """Intervals from few resamples: here they only have to exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "bootstrap_t_intervals", partial(bootstrap_t_intervals, resamples=199))
        yield


@pytest.mark.usefixtures("few_resamples")
@settings(max_examples=20)
@given(st.integers(1, 15), st.data())
def test_every_number_of_patients_gives_a_whole_table(n, data):
    values = st.lists(EDGES, min_size=n, max_size=n)
    blank = dict.fromkeys(BOUNDS, np.nan)
    rows = [
        {"approach": name, "dataset": "d", "source": "s", "fold": 0, "seed": seed, "image_id": f"i{number}"}
        | {"patient": f"i{number}", "tp": 1, "fp": 0, "fn": 0, "tn": 0, "distance_unit": "px"}
        | {**blank, "dice": dice, "hd95": 10 * (1 - dice), "assd": 1 - dice, "brier": (1 - dice) / 2}
        for name in ("a", "b", "c")
        for seed in range(data.draw(st.integers(1, 2)))
        for number, dice in enumerate(data.draw(values))
    ]
    table = pd.DataFrame(summarise(pd.DataFrame(rows, columns=SCORE_COLUMNS)))
    for column in ("p_value", "p_holm", "wilcoxon_p", "nemenyi_p"):
        p_values = table[column].dropna()
        assert ((p_values > 0) | (column == "nemenyi_p")).all()
        assert (p_values.between(0, 1)).all()
    paired = table[table["kind"] == "paired"]
    assert (paired["p_value"] >= 2.0 ** (1 - min(n, 14)) * (n <= 13)).all()
    assert (paired["p_holm"].dropna() >= paired.loc[paired["p_holm"].notna(), "p_value"]).all()
    assert (paired["better"] + paired["worse"] + paired["tied"] == n).all()
    means = table[table["kind"] == "mean"]
    with_interval = means.dropna(subset="low")
    assert (with_interval["low"] <= with_interval["value"] + 1e-12).all()
    assert (with_interval["value"] <= with_interval["high"] + 1e-12).all()
    assert np.isfinite(means["value"]).all()


def test_a_map_of_one_class_alone_has_scores():
    for truth in (np.zeros((20, 20), bool), np.ones((20, 20), bool)):
        for value in (0.0, 1.0):
            found = score_map(np.full((20, 20), value, np.float32), truth, 0.5)
            assert found["dice"] == float(truth[0, 0] == bool(value))
            assert found["brier"] == float(truth[0, 0] != bool(value))
