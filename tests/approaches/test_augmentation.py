import math

import pytest
import torch
from pydantic import ValidationError

from lungseg.approaches.augmentation import (
    Augmentation,
    AugmentationSettings,
    affine_matrices,
    warp,
)

OFF = {
    "flip": 0,
    "rotation": 0,
    "scale": (1, 1),
    "shift": 0,
    "gamma": (1, 1),
    "contrast": 0,
    "brightness": 0,
    "noise": 0,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def augment(images, masks=None, seed=0, **changes):
    augmentation = Augmentation(AugmentationSettings(**(OFF | changes)))
    return augmentation(images, images if masks is None else masks, generator(seed))


def moved(image, angle=0.0, scale=1.0, right=0.0, down=0.0, flip=False):
    """An image H x W, moved by known amounts; the angle is in degrees."""
    theta = affine_matrices(
        torch.tensor([math.radians(angle)]),
        torch.tensor([scale]),
        torch.tensor([[right, down]]),
        torch.tensor([flip]),
        *image.shape,
    )
    return warp(image[None, None], theta, "zeros")[0, 0]


def dot(height, width, row, column):
    image = torch.zeros(height, width)
    image[row, column] = 1
    return image


def place(image):
    """Row and column of the brightest pixel, which must be nearly white."""
    assert image.max() > 0.99
    return divmod(int(image.argmax()), image.shape[1])


def test_strength_zero_changes_nothing():
    images, masks = torch.rand(2, 2, 1, 17, 12, generator=generator())
    new_images, new_masks = augment(images, masks)
    assert torch.equal(new_images, images)
    assert torch.equal(new_masks, masks)


def test_a_quarter_turn_counter_clockwise():
    # From right of the centre to above it: row 4, column 7 of 9 x 9 is 3 to the right.
    assert place(moved(dot(9, 9, 4, 7), angle=90)) == (1, 4)
    image = torch.rand(8, 8, generator=generator())
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
    image = torch.rand(6, 7, generator=generator())
    torch.testing.assert_close(moved(image, flip=True), image.flip(1), atol=1e-5, rtol=0)
    batch = image.expand(20, 1, 6, 7)
    mirrored = [torch.allclose(one[0], image.flip(1), atol=1e-5) for one in augment(batch, flip=0.5)[0]]
    assert 0 < sum(mirrored) < 20


def test_image_and_mask_move_together():
    images = torch.rand(4, 1, 32, 24, generator=generator())
    geometry = {"flip": 0.5, "rotation": 20, "scale": (0.8, 1.2), "shift": 0.1}
    new_images, new_masks = augment(images, images, **geometry)
    assert torch.equal(new_images, new_masks)
    assert not torch.allclose(new_images, images, atol=0.1)


def test_what_comes_in_from_outside_is_never_lung():
    white = torch.ones(8, 1, 16, 16)
    images, masks = augment(white, shift=0.5, padding="border")
    assert images.min() > 0.99
    assert masks.min() == 0
    assert augment(white, shift=0.5, padding="zeros")[0].min() == 0


def test_either_padding_takes_both_kinds_image_by_image():
    white = torch.ones(32, 1, 16, 16)
    images, masks = augment(white, shift=0.5, padding="either")
    black = images.flatten(1).amin(1) == 0
    assert 0 < black.sum() < 32
    assert masks.flatten(1).amin(1)[~black].min() == 0  # outside there is no lung, whatever the image shows


def test_stretching_makes_one_side_longer_and_the_other_shorter():
    block = torch.zeros(64, 1, 65, 65)
    block[:, :, 16:49, 16:49] = 1
    images, masks = augment(block, stretch=0.5)
    wide, high = images[:, 0, 32].sum(1), images[:, 0, :, 32].sum(1)
    torch.testing.assert_close(wide * high, torch.full((64,), 33.0**2), rtol=0.05, atol=0)
    assert wide.max() > 40
    assert wide.min() < 27
    assert wide.max() <= 33 * 1.5 + 1
    assert torch.equal(images, masks)


def test_grey_values_change_by_the_settings_and_masks_do_not():
    images = torch.full((64, 1, 4, 4), 0.5)
    masks = torch.rand(64, 1, 4, 4, generator=generator())
    darker, same = augment(images, masks, gamma=(2, 2))
    assert torch.allclose(darker, torch.tensor(0.25))
    assert torch.equal(same, masks)
    brightness = augment(images, brightness=0.1)[0] - 0.5
    assert 0.08 < brightness.abs().max() <= 0.1 + 1e-6
    assert augment(images, contrast=0.5)[0].allclose(images)


def test_contrast_scales_the_distance_from_the_mean():
    images = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).repeat(64, 1, 1, 1)
    spread = augment(images, contrast=0.2)[0].diff(dim=3).flatten() / 0.2
    assert 0.8 - 1e-5 <= spread.min() < 0.85
    assert 1.15 < spread.max() <= 1.2 + 1e-5


def test_noise_has_at_most_its_standard_deviation():
    images = torch.full((64, 1, 32, 32), 0.5)
    deviations = augment(images, noise=0.05)[0].std(dim=(1, 2, 3))
    assert deviations.min() < 0.01
    assert 0.04 < deviations.max() < 0.055


def test_values_stay_between_0_and_1():
    images, masks = torch.rand(2, 16, 1, 20, 20, generator=generator()).round()
    changes = {
        "rotation": 90,
        "shift": 0.3,
        "gamma": (0.2, 5),
        "contrast": 0.9,
        "brightness": 0.5,
        "noise": 0.5,
    }
    for values in augment(images, masks, **changes):
        assert values.min() >= 0
        assert values.max() <= 1
        assert values.isfinite().all()


def test_the_generator_alone_decides():
    images = torch.rand(4, 1, 16, 16, generator=generator())
    augmentation = Augmentation(AugmentationSettings())
    torch.manual_seed(1)
    first = augmentation(images, images, generator(7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = augmentation(images, images, generator(7))
    other = augmentation(images, images, generator(8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    "wrong", [{"rotatoin": 5}, {"scale": (1.2, 0.8)}, {"gamma": (0, 1)}, {"flip": 2}, {"noise": -1}]
)
def test_a_setting_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentationSettings(**wrong)
