import numpy as np
import pytest

from lungseg.results import SCORE_COLUMNS
from lungseg.scoring.metrics import score_map, score_mask
from lungseg.scoring.overlap import best_threshold, binarise, mean_dice, pooled_f1


def mask(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


def test_counts_and_ratios_of_a_case_worked_by_hand():
    truth = mask("##..", "##..", "....")
    prediction = mask(".##.", ".##.", "....")
    scores = score_mask(prediction, truth)
    assert (scores["tp"], scores["fp"], scores["fn"], scores["tn"]) == (2, 2, 2, 6)
    assert scores["dice"] == pytest.approx(0.5)
    assert scores["iou"] == pytest.approx(1 / 3)
    assert scores["accuracy"] == pytest.approx(8 / 12)
    assert scores["precision"] == pytest.approx(0.5)
    assert scores["recall"] == pytest.approx(0.5)
    assert scores["specificity"] == pytest.approx(6 / 8)


def test_two_empty_masks_agree_wholly():
    scores = score_mask(mask("...", "..."), mask("...", "..."))
    assert {scores[name] for name in ("dice", "iou", "precision", "recall", "specificity")} == {1.0}


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_is_a_miss_in_every_overlap_metric(swap):
    pair = [mask("...", "..."), mask(".#.", "...")]
    scores = score_mask(*(pair[::-1] if swap else pair))
    assert [scores[name] for name in ("dice", "iou", "precision", "recall")] == [0, 0, 0, 0]


def test_specificity_of_an_image_that_is_all_lung():
    full = mask("##", "##")
    assert score_mask(full, full)["specificity"] == 1
    assert score_mask(mask("#.", "##"), full)["specificity"] == 0


def test_masks_that_are_not_bool_or_differ_in_shape_are_refused():
    bad = np.array([[0, 255]], np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        score_mask(bad, bad)
    with pytest.raises(ValueError, match="shape"):
        score_mask(mask("##"), mask("##", "##"))


def test_the_threshold_itself_is_lung():
    assert binarise(np.array([[0.5, 0.4999]]), 0.5).tolist() == [[True, False]]


def test_best_threshold_agrees_with_trying_each():
    rng = np.random.default_rng(0)
    truths = [rng.random((20, 20)) < share for share in (0.2, 0.5)]
    maps = [np.clip(truth * 0.3 + rng.normal(0.3, 0.1, truth.shape), 0, 1) for truth in truths]
    grid = np.round(np.arange(0.05, 0.951, 0.01), 2)
    by_hand = [mean_dice(maps, truths, threshold) for threshold in grid]
    found = best_threshold(maps, truths)
    assert mean_dice(maps, truths, found) == pytest.approx(max(by_hand), abs=1e-12)


def test_best_threshold_of_equals_is_the_one_nearest_to_half():
    truth = mask("##..")
    assert best_threshold([np.array([[0.9, 0.9, 0.1, 0.1]])], [truth]) == 0.5


def test_pooled_f1_weighs_pixels_not_images():
    assert pooled_f1(tp=90, fp=10, fn=0) == pytest.approx(180 / 190)
    assert pooled_f1(0, 0, 0) == 1


def test_scores_are_the_columns_of_the_table_in_their_order():
    truth = mask("##..", "##..")
    first, last = SCORE_COLUMNS.index("tp"), SCORE_COLUMNS.index("surface_dice_2")
    assert list(score_mask(truth, truth)) == SCORE_COLUMNS[first : last + 1]
    assert list(score_map(truth.astype(np.float32), truth, 0.5)) == SCORE_COLUMNS[first:]


def test_area_error_is_a_share_of_the_true_area():
    truth, empty = mask("####"), mask("....")
    assert score_mask(mask("#..."), truth)["area_error"] == 0.75
    assert score_mask(truth, mask("#..."))["area_error"] == 3
    assert score_mask(empty, empty)["area_error"] == 0
    assert score_mask(empty, truth)["area_error"] == score_mask(truth, empty)["area_error"] == 1


def test_spacing_turns_distances_into_mm_and_changes_no_overlap():
    one, other = mask("#...", "....", "...."), mask("....", "....", "#...")
    pixels, mm = score_mask(one, other), score_mask(one, other, (0.5, 2))
    assert (pixels["distance_unit"], mm["distance_unit"]) == ("px", "mm")
    assert (pixels["hausdorff"], mm["hausdorff"]) == (2, 1)
    assert pixels["dice"] == mm["dice"]


@pytest.mark.parametrize("spacing", [(1.0,), (0.5, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 1.0, 1.0)])
def test_a_spacing_that_is_not_two_positive_numbers_is_refused(spacing):
    truth = mask("##..")
    with pytest.raises(ValueError, match="two positive numbers"):
        score_mask(truth, truth, spacing)


def test_a_map_is_cut_at_the_threshold_and_has_a_brier_score():
    truth = mask("##..")
    scores = score_map(np.array([[0.9, 0.4, 0.3, 0.0]]), truth, threshold=0.35)
    assert (scores["tp"], scores["fp"], scores["fn"]) == (2, 0, 0)
    assert scores["brier"] == pytest.approx((0.01 + 0.36 + 0.09) / 4)


def test_a_map_outside_0_and_1_is_refused():
    truth = mask("##")
    for bad in (np.array([[1.2, 0]]), np.array([[np.nan, 0]]), np.array([[-0.1, 0]])):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            score_map(bad, truth, 0.5)
    with pytest.raises(ValueError, match="float"):
        score_map(np.array([[255, 0]], np.uint8), truth, 0.5)
    with pytest.raises(ValueError, match="shape"):
        score_map(np.zeros((2, 2)), truth, 0.5)
