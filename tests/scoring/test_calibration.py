import numpy as np
import pytest

from lungseg.scoring.calibration import brier_score, calibration_rows, reliability_bins


def test_brier_score_by_hand_and_at_its_ends():
    truth = np.array([[True, False]])
    assert brier_score(np.array([[0.8, 0.4]], np.float32), truth) == pytest.approx((0.04 + 0.16) / 2)
    assert brier_score(truth.astype(np.float32), truth) == 0
    assert brier_score((~truth).astype(np.float32), truth) == 1


def test_bins_hold_their_lower_edge_and_the_last_one_holds_1():
    values = np.array([[0.0, 0.09, 0.1, 0.5, 0.95, 1.0]])
    counts, sums, lung = reliability_bins(values, values >= 0.5)
    assert counts.tolist() == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    assert lung.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert sums[[0, 1, 5, 9]].tolist() == pytest.approx([0.09, 0.1, 0.5, 1.95])


def test_every_edge_falls_into_the_bin_above_it():
    edges = np.arange(100)[None] / 100
    counts, _, _ = reliability_bins(edges, edges > 2, bins=100)
    assert counts.tolist() == [1] * 100


def test_bins_of_images_add_up_to_the_bins_of_all():
    rng = np.random.default_rng(0)
    values = rng.random((2, 30, 20)).astype(np.float32)
    truths = rng.random((2, 30, 20)) < values
    first, second = (reliability_bins(v, t) for v, t in zip(values, truths, strict=True))
    both = reliability_bins(values.reshape(60, 20), truths.reshape(60, 20))
    for one, other, whole in zip(first, second, both, strict=True):
        np.testing.assert_allclose(one + other, whole)
    assert both[0].dtype == both[2].dtype == np.int64


def test_rows_give_edges_means_and_shares_and_nan_for_an_empty_bin():
    rows = calibration_rows(np.array([4, 0]), np.array([1.0, 0.0]), np.array([3, 0]))
    assert rows[0] == {
        "bin": 0,
        "low": 0,
        "high": 0.5,
        "count": 4,
        "mean_probability": 0.25,
        "lung_share": 0.75,
    }
    assert (rows[1]["low"], rows[1]["high"], rows[1]["count"]) == (0.5, 1, 0)
    assert np.isnan([rows[1]["mean_probability"], rows[1]["lung_share"]]).all()


def test_what_is_no_map_is_refused():
    truth = np.array([[True, False]])
    with pytest.raises(ValueError, match="float"):
        reliability_bins(np.array([[1, 0]]), truth)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reliability_bins(np.array([[1.0, 255.0]]), truth)
    with pytest.raises(ValueError, match="shape"):
        brier_score(np.array([[0.5]]), truth)
    with pytest.raises(ValueError, match="bin"):
        reliability_bins(np.array([[0.5, 0.5]]), truth, bins=0)
