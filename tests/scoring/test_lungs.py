import numpy as np
import pytest
from scipy.ndimage import binary_closing, binary_dilation, rotate

from lungseg.data.datasets.phantom import render
from lungseg.scoring.lungs import dividing_columns, lung_dice, split_lungs
from lungseg.scoring.overlap import confusion, overlap


def ellipse(shape: tuple[int, int], row: float, column: float, height: float, width: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1


def chest(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The right lung, on the image's left and larger, and the left one."""
    shape = (128, 160)
    return ellipse(shape, 64, 50 + shift, 45, 22), ellipse(shape, 60, 105 + shift, 40, 19)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return overlap(**confusion(one, other))["dice"]


def check(truth: np.ndarray, left: np.ndarray, right: np.ndarray, least: float = 0.97) -> None:
    found_left, found_right = split_lungs(truth)
    assert not (found_left & found_right).any()
    assert ((found_left | found_right) == truth).all()
    assert dice(found_left & left, left) > least
    assert dice(found_right & right, right) > least


@pytest.mark.parametrize("shift", [0, -45, 45])  # off-centre, and cut by the border
def test_the_right_lung_is_on_the_left_of_the_image(shift):
    right, left = chest(shift)
    found_left, found_right = split_lungs(right | left)
    assert (found_left == left).all()
    assert (found_right == right).all()


@pytest.mark.parametrize("rows", [(60, 62), (20, 50)])
def test_lungs_joined_by_a_bridge_are_cut_at_it(rows):
    right, left = chest()
    bridge = np.zeros_like(right)
    bridge[slice(*rows), 45:110] = True
    check(right | left | bridge, left, right, 0.99)


@pytest.mark.parametrize("index", range(4))
def test_phantoms_lungs_that_touch_are_cut_where_they_touch(index):
    truth = render(0, index, 128)[1]
    left, right = split_lungs(truth)
    assert left.any()
    assert right.any()
    assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()
    padded = np.pad(truth, 12)
    reach = next(n for n in range(1, 13) if (split_is_one(binary_dilation(padded, iterations=n))) or n == 12)
    check(binary_dilation(padded, iterations=reach), np.pad(left, 12), np.pad(right, 12))
    closed = binary_closing(padded, iterations=reach + 1)
    check(closed, np.pad(left, 12), np.pad(right, 12))


def split_is_one(mask: np.ndarray) -> bool:
    from scipy.ndimage import label

    return label(mask)[1] == 1


def test_tilted_lungs():
    right, left = (rotate(lung.astype(float), 12, reshape=False, order=1) > 0.5 for lung in chest())
    check(right | left, left, right)


def test_fragments_go_to_the_side_they_lie_on():
    right, left = chest()
    right[62:66] = False  # in two
    left[100:104, 120:126] = True  # and an island
    check(right | left, left, right, 0.999)


def test_a_lung_that_is_missing_has_no_dice():
    right, left = chest()
    empty = np.zeros_like(left)
    assert not split_lungs(left)[1].any()
    assert not split_lungs(right)[0].any()
    score_left, score_right = lung_dice(right | left, right)
    assert np.isnan(score_left)
    assert score_right == 1  # what was predicted on the missing side counts nowhere here
    assert np.isnan(lung_dice(right, empty)).all()
    assert np.isnan(lung_dice(empty, empty)).all()


def test_specks_are_no_lung():
    right, _ = chest()
    right[60:62, 120:122] = True
    left, found = split_lungs(right)
    assert not left.any()
    assert (found == right).all()


def test_a_single_lung_in_two_pieces_one_above_the_other_is_one_lung():
    right, _ = chest()
    right[62:66] = False
    assert not split_lungs(right)[0].any()


def test_each_lung_is_scored_alone():
    right, left = chest()
    prediction = right.copy()
    prediction[:, :50] = False
    score_left, score_right = lung_dice(prediction, right | left)
    assert score_left == 0
    assert score_right == pytest.approx(dice(prediction, right))
    assert lung_dice(right | left, right | left) == (1, 1)


def test_a_wrong_pixel_counts_for_the_side_of_the_dividing_curve_on_which_it_lies():
    right, left = chest()
    truth = right | left
    border = dividing_columns(left, right)
    assert border[64] == (73 + 87) / 2  # one behind the right lung and the first of the left one
    prediction = truth.copy()
    prediction[64, 79] = True
    score_left, score_right = lung_dice(prediction, truth)
    assert score_left == 1
    assert score_right == pytest.approx(2 * right.sum() / (2 * right.sum() + 1))
    prediction[127, 159] = True  # below both lungs
    assert lung_dice(prediction, truth)[0] == pytest.approx(2 * left.sum() / (2 * left.sum() + 1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 200), (300, 3)])
def test_no_mask_is_too_small_or_too_strange(shape):
    rng = np.random.default_rng(0)
    for density in (0, 0.1, 0.5, 0.9, 1):
        truth = rng.random(shape) < density
        left, right = split_lungs(truth)
        assert ((left | right) == truth).all()
        assert not (left & right).any()
        scores = np.array(lung_dice(truth, truth))
        assert np.isnan(scores[scores != 1]).all()


def test_what_is_no_mask_is_refused():
    with pytest.raises(ValueError, match="bool"):
        split_lungs(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="shape"):
        lung_dice(np.zeros((4, 4), bool), np.zeros((4, 5), bool))
