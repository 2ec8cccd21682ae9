import math

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch.nn import functional

from lungseg.learning.images.geometry import (
    KNOTS,
    crop_matrices,
    interpolate_displacements,
    make_affine_matrices,
    stretch_matrices,
)


def moved(
    image,
    angle=0.0,
    scale=1.0,
    right=0.0,
    down=0.0,
    flip=False,
    stretch=1.0,
    borders=(0.0, 0.0, 0.0, 0.0),
    padding="zeros",
):
    """An image H x W, moved by known amounts; the angle is in degrees."""
    theta = make_affine_matrices(
        torch.tensor([math.radians(angle)]),
        torch.tensor([scale]),
        torch.tensor([[right, down]]),
        torch.tensor([flip]),
        *image.shape,
    )
    theta = crop_matrices(stretch_matrices(theta, torch.tensor([stretch])), torch.tensor([borders]))
    places = functional.affine_grid(theta, [1, 1, *image.shape], align_corners=False)
    return functional.grid_sample(image[None, None], places, "bilinear", padding, align_corners=False)[0, 0]


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def dot(height, width, row, column):
    image = torch.zeros(height, width)
    image[row, column] = 1
    return image


def place(image):
    """Row and column of the brightest pixel, which must be nearly white."""
    assert image.max() > 0.99
    return divmod(int(image.argmax()), image.shape[1])


def test_a_quarter_turn_counter_clockwise():
    # From right of the centre to above it: row 4, column 7 of 9 x 9 is 3 to the right.
    assert place(moved(dot(9, 9, 4, 7), angle=90)) == (1, 4)
    image = random(8, 8)
    torch.testing.assert_close(moved(image, angle=90), torch.rot90(image), atol=1e-4, rtol=0)


def test_a_turn_does_not_shear_an_image_that_is_not_square():
    # 3 pixels to the right of the centre of a wide image become 3 pixels above it.
    assert place(moved(dot(9, 21, 4, 13), angle=90)) == (1, 10)


def test_a_shift_by_known_pixels():
    # Two of 10 columns to the right, three of 12 rows down.
    assert place(moved(dot(12, 10, 4, 5), right=0.2, down=0.25)) == (7, 7)


def test_the_shift_comes_after_the_turn():
    assert place(moved(dot(9, 9, 4, 7), angle=90, right=2 / 9)) == (1, 6)


def test_magnification_moves_away_from_the_centre():
    # The middle of the block is 3 pixels from the centre: magnified 6, made smaller 1.5.
    white = torch.zeros(21, 21)
    white[9:12, 12:15] = 1
    assert moved(white, scale=2.0)[10, 16] > 0.99
    assert moved(white, scale=0.5)[10, 11] > 0.99


def test_a_flip_mirrors_left_and_right():
    image = random(6, 7)
    torch.testing.assert_close(moved(image, flip=True), image.flip(1), atol=1e-5, rtol=0)


def test_stretching_widens_and_lowers():
    # One pixel from the centre becomes three along x, three become one along y.
    assert place(moved(dot(9, 9, 4, 5), stretch=3.0)) == (4, 7)
    assert place(moved(dot(9, 9, 1, 4), stretch=3.0)) == (3, 4)


def test_what_a_crop_leaves_fills_the_image():
    # A ramp that has the value of its place; without the left half it goes from 0.5 to 1.
    centres = (torch.arange(8) + 0.5) / 8
    expected = 0.5 + centres / 2
    expected[-1] = centres[-1]  # beyond the last pixel's centre: the border is repeated
    found = moved(centres.expand(6, 8), borders=(0.5, 0.0, 0.0, 0.0), padding="border")
    torch.testing.assert_close(found, expected.expand(6, 8), atol=1e-5, rtol=0)


def test_a_crop_keeps_the_centres_of_pixels():
    # Columns 6 to 8 of 9 and rows 0 to 4 of 15 are left; each pixel becomes 3 x 3, its centre the middle one.
    assert place(moved(dot(15, 9, 3, 8), borders=(2 / 3, 0.0, 0.0, 2 / 3))) == (10, 7)


def test_the_crop_comes_last():
    # Turned to row 1, column 4, of which rows 0 to 2 are left; shifted to column 5, of which 3 to 5 are left.
    assert place(moved(dot(9, 9, 4, 7), angle=90, borders=(0.0, 0.0, 0.0, 2 / 3))) == (4, 4)
    assert place(moved(dot(9, 9, 4, 4), right=1 / 9, borders=(1 / 3, 1 / 3, 1 / 3, 1 / 3))) == (4, 7)


def test_displacements_are_those_of_scipy_s_cubic_spline():
    knots = random(3, 2, KNOTS, KNOTS)
    breaks = np.arange(-3, KNOTS + 1)
    y, x = ((np.arange(side) + 0.5) / side * (KNOTS - 3) for side in (12, 21))
    along = BSpline(breaks, knots.numpy(), 3, axis=2)(y)
    expected = BSpline(breaks, along, 3, axis=3)(x)
    np.testing.assert_allclose(interpolate_displacements(knots, 12, 21).numpy(), expected, atol=2e-6)


def test_displacements_stay_within_the_knots_and_are_smooth():
    knots = random(50, 2, KNOTS, KNOTS).round() * 2 - 1  # the largest there are, of either sign
    found = interpolate_displacements(knots, 32, 64)
    assert 0.5 < found.abs().max() <= 1 + 1e-6
    # Neighbouring knots, 8 rows or 16 columns apart, differ by 2 at most, and their differences by 4.
    for axis, spacing in ((2, 8), (3, 16)):
        assert found.diff(dim=axis).abs().max() <= 2 / spacing + 1e-6
        assert found.diff(n=2, dim=axis).abs().max() <= 4 / spacing**2 + 1e-5


def test_equal_knots_displace_everything_alike():
    knots = torch.full((1, 2, KNOTS, KNOTS), 0.3)
    torch.testing.assert_close(interpolate_displacements(knots, 7, 10), torch.full((1, 2, 7, 10), 0.3))
