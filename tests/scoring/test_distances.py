import math

import numpy as np
import pytest

from lungseg.scoring.distances import boundary, boundary_distances, boundary_metrics
from lungseg.scoring.overlap import bounding_box


def box(shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def test_a_boundary_is_the_mask_without_its_inside_and_the_image_edge_is_outside():
    ring = boundary(box((5, 5), (0, 4), (0, 5)))
    assert ring.astype(int).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0],
    ]
    assert boundary(np.ones((2, 7), bool)).all()
    assert not boundary(np.zeros((4, 4), bool)).any()


def test_two_pixels_three_apart():
    found = boundary_metrics(box((9, 9), (4, 5), (2, 3)), box((9, 9), (4, 5), (5, 6)))
    assert found == {"hausdorff": 3, "hd95": 3, "assd": 3, "surface_dice_1": 0, "surface_dice_2": 0}


def test_two_pixels_three_apart_with_a_spacing():
    one, other = box((9, 9), (4, 5), (2, 3)), box((9, 9), (4, 5), (5, 6))
    assert boundary_metrics(one, other, (9.0, 0.2))["hausdorff"] == pytest.approx(0.6)
    assert boundary_metrics(one.T, other.T, (9.0, 0.2))["hausdorff"] == pytest.approx(27)


def test_a_square_shifted_by_one():
    # A 4 x 4 square has 12 boundary pixels. Shifted by a column, the two columns of 4 that it leaves or
    # gains lie at distance 1, and so do the 2 pixels in the middle of the column that was its other side
    # and is now inside: 4 + 2 of 12 on each side.
    found = boundary_metrics(box((100, 100), (3, 7), (3, 7)), box((100, 100), (3, 7), (4, 8)))
    assert found["hausdorff"] == found["hd95"] == 1
    assert found["assd"] == pytest.approx(6 / 12)
    assert found["surface_dice_1"] == 1  # 1 % of 100 pixels is exactly the shift


def test_a_square_shifted_by_one_just_outside_the_tolerance():
    found = boundary_metrics(box((99, 40), (3, 7), (3, 7)), box((99, 40), (3, 7), (4, 8)))
    assert found["surface_dice_1"] == pytest.approx(6 / 12)
    assert found["surface_dice_2"] == 1


def test_nested_squares():
    # From the pixel in the centre of a 5 x 5 square to its ring of 16, and back: once 2, and from the ring
    # 4 x 2, 8 x sqrt(5), 4 x sqrt(8).
    found = boundary_metrics(box((20, 20), (7, 8), (7, 8)), box((20, 20), (5, 10), (5, 10)))
    back = np.array([2] * 4 + [math.sqrt(5)] * 8 + [math.sqrt(8)] * 4)
    assert found["hausdorff"] == pytest.approx(math.sqrt(8))
    assert found["hd95"] == pytest.approx(np.percentile(back, 95))
    assert found["assd"] == pytest.approx((2 + back.sum()) / 17)


def test_nested_squares_with_a_spacing():
    found = boundary_metrics(
        box((20, 20), (7, 8), (7, 8)), box((20, 20), (5, 10), (5, 10)), spacing=(3.0, 0.5)
    )
    assert found["hausdorff"] == pytest.approx(math.hypot(6, 1))
    # The ring's pixels by row: 2 rows of five at 6 mm, and the sides at 0 and 3 mm.
    steps = [math.hypot(6, x) for x in (1, 0.5, 0, 0.5, 1)] * 2 + [math.hypot(y, 1) for y in (3, 0, 3)] * 2
    assert found["assd"] == pytest.approx((1 + sum(steps)) / 17)  # 1 mm: the centre to the side of the ring


def test_hd95_takes_the_worse_direction_and_does_not_pool():
    # 19 of 20 pixels agree in one direction; in the other all do.
    truth = box((1, 200), (0, 1), (0, 10))
    prediction = truth.copy()
    prediction[0, 110] = True
    found = boundary_metrics(prediction, truth)
    assert found["hausdorff"] == 101
    assert found["hd95"] == pytest.approx(101 * 0.5)  # rank .95 * 10 = 9.5 of eleven, linear
    pooled = np.percentile([0] * 20 + [101], 95)
    assert pooled == 0


@pytest.mark.parametrize("swap", [False, True])
def test_one_row_against_nothing_is_the_diagonal(swap):
    pair = [box((30, 40), (3, 4), (0, 40)), np.zeros((30, 40), bool)]
    pair = pair[::-1] if swap else pair
    assert boundary_metrics(*pair) == {
        "hausdorff": 50,
        "hd95": 50,
        "assd": 50,
        "surface_dice_1": 0,
        "surface_dice_2": 0,
    }
    assert boundary_metrics(*pair, spacing=(0.4, 0.2))["assd"] == pytest.approx(math.hypot(12, 8))


def test_nothing_against_nothing_agrees():
    empty = np.zeros((5, 5), bool)
    found = boundary_metrics(empty, empty)
    assert found == {"hausdorff": 0, "hd95": 0, "assd": 0, "surface_dice_1": 1, "surface_dice_2": 1}


def test_a_distance_equal_to_the_tolerance_counts_in_any_unit():
    one, other = box((300, 10), (50, 51), (2, 3)), box((300, 10), (53, 54), (2, 3))
    for step in (1.0, 0.1, 0.143, 1 / 3, 7.7):
        assert boundary_metrics(one, other, (step, step))["surface_dice_1"] == 1


def test_tree_and_distance_transform_find_the_same(monkeypatch):
    from lungseg.scoring import distances

    rng = np.random.default_rng(0)
    for spacing in (None, (0.7, 0.3)):
        one, other = rng.random((2, 40, 30)) < 0.3
        monkeypatch.setattr(distances, "PIXELS_PER_POINT", 0)
        trees = [np.sort(values) for values in boundary_distances(one, other, spacing)]
        monkeypatch.setattr(distances, "PIXELS_PER_POINT", 1e9)
        transforms = [np.sort(values) for values in boundary_distances(one, other, spacing)]
        for tree, transform in zip(trees, transforms, strict=True):
            np.testing.assert_allclose(tree, transform, atol=1e-12)


def test_the_masks_are_left_as_they_were():
    one, other = box((9, 9), (2, 6), (2, 6)), box((9, 9), (3, 8), (3, 8))
    kept = one.copy(), other.copy()
    boundary_metrics(one, other)
    assert (one == kept[0]).all()
    assert (other == kept[1]).all()


def test_the_bounding_box_holds_all_masks_and_no_more():
    one, other = box((9, 8), (2, 4), (3, 5)), box((9, 8), (3, 9), (0, 1))
    assert bounding_box(one, other) == (slice(2, 9), slice(0, 5))
    assert bounding_box(one) == (slice(2, 4), slice(3, 5))
    assert bounding_box(np.zeros((3, 3), bool)) is None
