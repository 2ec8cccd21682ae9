import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from lungseg.learning.images import augmentation
from lungseg.learning.images.augmentation import Augmentation, AugmentationSettings, Changes
from lungseg.learning.images.clahe import apply_clahe
from lungseg.learning.images.geometry import KNOTS

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


def apply(images, masks=None, **amounts):
    """Known amounts, whatever the settings."""
    augmentation = Augmentation(AugmentationSettings())
    return augmentation.apply(images, images if masks is None else masks, Changes(**amounts))


def dot(height, width, row, column):
    image = torch.zeros(1, 1, height, width)
    image[..., row, column] = 1
    return image


def place(image):
    """Row and column of the brightest pixel, which must be nearly white."""
    assert image.max() > 0.99
    return divmod(int(image.argmax()), image.shape[-1])


def constant_knots(right, down):
    knots = torch.zeros(1, 2, KNOTS, KNOTS)
    knots[:, 0], knots[:, 1] = right, down
    return knots


def test_strength_zero_changes_nothing():
    images, masks = torch.rand(2, 2, 1, 17, 12, generator=generator())
    new_images, new_masks = augment(images, masks)
    assert torch.equal(new_images, images)
    assert torch.equal(new_masks, masks)


def test_amounts_of_zero_change_nothing():
    images, masks = torch.rand(2, 2, 1, 17, 12, generator=generator())
    none = torch.zeros(2, 4)
    amounts = {"borders": none, "knots": torch.zeros(2, 2, KNOTS, KNOTS), "collimated": none}
    for new, old in zip(apply(images, masks, **amounts), (images, masks), strict=True):
        torch.testing.assert_close(new, old, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border", "either"])
def test_a_seed_gives_what_it_always_gave(padding):
    # The amounts' order and the arithmetic are fixed, to the last bit: published copies were made by them.
    images, masks = torch.rand(2, 5, 1, 12, 20, generator=generator(1))
    chance = generator(4)

    def uniform(low, high):
        return torch.rand(5, generator=chance) * (high - low) + low

    angles, scales = torch.deg2rad(uniform(-20, 20)), uniform(math.log(0.7), math.log(1.3)).exp()
    shifts = torch.stack([uniform(-0.1, 0.1), uniform(-0.1, 0.1)], 1)
    flips = uniform(0, 1) < 0.5
    stretch = uniform(math.log(1 / 1.2), math.log(1.2)).exp()
    black = uniform(0, 1) < 0.5 if padding == "either" else torch.full((5,), padding == "zeros")
    gamma = uniform(math.log(0.5), math.log(2)).exp().view(5, 1, 1, 1)
    contrast = 1 + uniform(-0.3, 0.3).view(5, 1, 1, 1)
    brightness = uniform(-0.2, 0.2).view(5, 1, 1, 1)

    cosine, sine = angles.cos() / scales, angles.sin() / scales
    across, down = torch.stack([cosine, -sine * 12 / 20], 1), torch.stack([sine * 20 / 12, cosine], 1)
    turn = torch.stack([across, down], 1)
    theta = torch.cat([turn, -turn @ (2 * shifts)[:, :, None]], 2)
    theta[flips, 0] = -theta[flips, 0]
    theta[:, :, :2] = theta[:, :, :2] @ torch.diag_embed(torch.stack([1 / stretch, stretch], 1))
    places = functional.affine_grid(theta, [5, 1, 12, 20], align_corners=False)
    read = {
        padding: functional.grid_sample(images, places, padding_mode=padding, align_corners=False)
        for padding in ("zeros", "border")
    }
    expected = torch.where(black.view(5, 1, 1, 1), read["zeros"], read["border"]).clamp(0, 1) ** gamma
    means = expected.mean(dim=(1, 2, 3), keepdim=True)
    expected = ((expected - means) * contrast + means + brightness).clamp(0, 1)

    geometry = {"flip": 0.5, "rotation": 20, "scale": (0.7, 1.3), "stretch": 0.2, "shift": 0.1}
    grey_values = {"gamma": (0.5, 2), "contrast": 0.3, "brightness": 0.2}
    found, moved = augment(images, masks, seed=4, padding=padding, **geometry, **grey_values)
    assert torch.equal(found, expected)
    learnt = functional.grid_sample(masks, places, padding_mode="zeros", align_corners=False)
    assert torch.equal(moved, learnt.clamp(0, 1))


def test_what_is_new_is_off_and_leaves_the_other_amounts_what_they_were():
    new = {"crop": 0.1, "elastic": 0.05, "collimation": 0.1, "local_contrast": 0.5}
    changed = {"borders", "knots", "collimated", "local_contrast"}
    plain = vars(Augmentation(AugmentationSettings()).draw(6, generator()))
    with_new = vars(Augmentation(AugmentationSettings(**new)).draw(6, generator()))
    assert {name for name in with_new if with_new[name] is not None and plain[name] is None} == changed
    for name in ("angles", "scales", "shifts", "flips", "gamma", "contrast", "brightness", "noise_seeds"):
        assert torch.equal(plain[name], with_new[name]), name


def test_parts_of_a_batch_are_changed_as_in_the_whole():
    images, masks = torch.rand(2, 8, 1, 40, 24, generator=generator())
    geometry = {"flip": 0.5, "stretch": 0.2, "crop": 0.2, "elastic": 0.05, "padding": "either"}
    augmentation = Augmentation(AugmentationSettings(**geometry, collimation=0.1, local_contrast=0.5))
    drawn = augmentation.draw(8, generator())
    some = torch.tensor([False, True, False, True, True, False, False, True])
    changes = replace(drawn, black=some.flip(0), local_contrast=some)
    whole = augmentation.apply(images, masks, changes)
    parts = [augmentation.apply(images[p], masks[p], changes[p]) for p in (slice(0, 3), slice(3, 8))]
    for both, expected in zip(zip(*parts, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(both), expected)


def test_a_constant_displacement_is_read_from_that_far_away():
    # Read two of 10 columns further right and three of 12 rows further down: moved to the left and upwards.
    assert place(apply(dot(12, 10, 4, 5), knots=constant_knots(0.2, 0.25))[0]) == (1, 3)


def test_the_picture_is_bent_then_turned_then_cut():
    quarter = {
        "angles": torch.tensor([math.pi / 2]),
        "scales": torch.ones(1),
        "shifts": torch.zeros(1, 2),
        "flips": torch.tensor([False]),
    }
    # Bent two columns to the left, which a turn puts two rows below the centre.
    bent = {"knots": constant_knots(2 / 9, 0.0)}
    assert place(apply(dot(9, 9, 4, 4), **quarter, **bent)[0]) == (6, 4)
    # There rows 6 to 8 and columns 3 to 5 are left, each pixel threefold.
    cut = {"borders": torch.tensor([[1 / 3, 1 / 3, 2 / 3, 0.0]])}
    assert place(apply(dot(9, 9, 4, 4), **quarter, **bent, **cut)[0]) == (1, 4)


def test_some_images_are_flipped():
    image = torch.rand(6, 7, generator=generator())
    batch = image.expand(20, 1, 6, 7)
    mirrored = [torch.allclose(one[0], image.flip(1), atol=1e-5) for one in augment(batch, flip=0.5)[0]]
    assert 0 < sum(mirrored) < 20


def test_image_and_mask_move_together():
    images = torch.rand(4, 1, 32, 24, generator=generator())
    affine = {"flip": 0.5, "rotation": 20, "scale": (0.8, 1.2), "shift": 0.1}
    for geometry in (affine, {"elastic": 0.1}, {"crop": 0.3}, {"collimation": 0.3}):
        new_images, new_masks = augment(images, images, **geometry)
        assert torch.equal(new_images, new_masks)
        assert not torch.allclose(new_images, images, atol=0.1)


def test_a_bent_mask_stays_on_its_organ_s_edge():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    cone = (1 - torch.hypot(y - 30, x - 22) / 20).clamp_min(0).expand(8, 1, 64, 48)
    images, masks = augment(cone, (cone > 0.5).float(), elastic=0.08)
    lung = (images > 0.5).float()
    assert (lung != (cone > 0.5)).float().mean() > 0.003
    # Within a pixel of the lung's edge in the image.
    grown = functional.max_pool2d(lung, 3, 1, 1)
    shrunk = 1 - functional.max_pool2d(1 - lung, 3, 1, 1)
    learnt = (masks > 0.5).float()
    assert ((shrunk <= learnt) & (learnt <= grown)).all()


def test_amounts_are_drawn_up_to_the_settings():
    settings = AugmentationSettings(elastic=0.1, crop=0.3, collimation=0.2, local_contrast=0.25)
    drawn = Augmentation(settings).draw(200, generator())
    assert 0.095 < drawn.knots.abs().max() <= 0.1
    assert drawn.knots.min() < -0.095
    for shares, largest in ((drawn.borders, 0.3), (drawn.collimated, 0.2)):
        assert shares.shape == (200, 4)
        assert shares.min() >= 0
        assert (shares.amax(0) > 0.9 * largest).all()
        assert shares.max() <= largest
    assert 20 < drawn.local_contrast.sum() < 80


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


def test_bending_brings_in_what_the_padding_says():
    white = torch.ones(32, 1, 16, 16)
    for padding in ("zeros", "border", "either"):
        images, masks = augment(white, elastic=0.1, padding=padding)
        darkest = images.flatten(1).amin(1)
        assert bool((darkest < 0.9).any()) == (padding != "border")
        assert bool((darkest > 0.99).sum() > 4) == (padding != "zeros")
        assert masks.min() < 0.9


def test_a_crop_brings_in_nothing_from_outside():
    images, masks = augment(torch.ones(32, 1, 16, 24), crop=0.4)
    # At the outermost pixels the picture's last centre may be passed by less than half a pixel.
    assert images[..., 1:-1, 1:-1].min() > 0.999
    assert masks[..., 1:-1, 1:-1].min() > 0.999


def test_behind_a_collimator_it_is_black_and_there_is_no_lung():
    images, masks = torch.full((1, 1, 4, 8), 0.5), torch.ones(1, 1, 4, 8)
    # A quarter of 8 columns at the left and an eighth at the right, half of the 4 rows at the top.
    shares = torch.tensor([[0.25, 0.125, 0.5, 0.0]])
    images, masks = apply(images, masks, collimated=shares, brightness=torch.tensor([0.2]))
    expected = torch.zeros(1, 1, 4, 8)
    expected[..., 2:, 2:7] = 1
    assert torch.equal(masks, expected)
    torch.testing.assert_close(images, 0.7 * expected)


def test_local_contrast_changes_the_chosen_images_alone():
    images, masks = torch.rand(2, 3, 1, 20, 33, generator=generator())
    found, same = apply(images, masks, local_contrast=torch.tensor([True, False, True]))
    assert torch.equal(found[[0, 2]], apply_clahe(images[[0, 2]]))
    assert torch.equal(found[1], images[1])
    assert not torch.equal(found[0], images[0])
    assert torch.equal(same, masks)


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
    noisy = augment(images, noise=0.05)[0]
    deviations = noisy.std(dim=(1, 2, 3))
    assert deviations.min() < 0.01
    assert 0.04 < deviations.max() < 0.055
    # No two images have the same noise: over 1024 pixels chance alone gives 0.03.
    correlations = torch.corrcoef(noisy.flatten(1)) - torch.eye(64)
    assert correlations.abs().max() < 0.2


def test_the_noise_of_an_image_is_its_seed_s():
    amounts = {"noise": torch.full((3,), 0.1), "noise_seeds": torch.tensor([1, 2**61, 1])}
    first, second, again = apply(torch.full((3, 1, 8, 8), 0.5), **amounts)[0]
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=0.05)


def test_values_stay_between_0_and_1():
    images, masks = torch.rand(2, 16, 1, 20, 20, generator=generator()).round()
    changes = {
        "rotation": 90,
        "shift": 0.3,
        "crop": 0.3,
        "elastic": 0.15,
        "collimation": 0.1,
        "local_contrast": 0.5,
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
    "wrong",
    [
        {"rotatoin": 5},
        {"rotation": math.nan},
        {"scale": (1.2, 0.8)},
        {"scale": (1, math.inf)},
        {"gamma": (0, 1)},
        {"flip": 2},
        {"noise": -1},
        {"crop": 0.5},
        {"crop": -0.1},
        {"elastic": 0.2},
        {"collimation": 0.5},
        {"local_contrast": 1.5},
        {"padding": "mirror"},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentationSettings(**wrong)


def test_amounts_go_to_the_device_in_one_copy_and_nothing_asks_the_device(monkeypatch):
    # Tensors of this device have no data, so a question about a value raises.
    meta, moved, to = torch.device("meta"), [], torch.Tensor.to
    monkeypatch.setattr(augmentation, "_draw_noise", lambda images, *_: torch.zeros_like(images))
    geometry = {"flip": 0.5, "stretch": 0.2, "crop": 0.2, "elastic": 0.05, "padding": "either"}
    changer = Augmentation(AugmentationSettings(**geometry, collimation=0.1))
    images = torch.rand(8, 1, 16, 12).to(meta)
    changer(images, images, generator())  # the spline's weights are kept on the device from now on

    def counted(tensor, *given, **keys):
        found = to(tensor, *given, **keys)
        if found.device != tensor.device:
            moved.append(keys)
        return found

    monkeypatch.setattr(torch.Tensor, "to", counted)
    changed, masks = changer(images, images, generator())
    assert moved == [{"non_blocking": True}]
    assert changed.shape == masks.shape == images.shape
    with pytest.raises(NotImplementedError, match="meta"):
        changed.cpu()


def test_amounts_are_the_same_after_the_copy():
    drawn = Augmentation(AugmentationSettings(crop=0.1, elastic=0.05, collimation=0.2, local_contrast=0.5))
    amounts = augmentation._list_amounts(drawn.draw(5, generator()), 9, 7)
    sent = augmentation._send(amounts, torch.device("cpu"))
    assert list(sent) == list(amounts)
    for name, value in amounts.items():
        assert torch.equal(sent[name], value.float()), name
    assert augmentation._send({}, torch.device("cpu")) == {}


def test_noise_that_is_drawn_at_once_is_one_call_and_differs_between_images():
    images, seeds = torch.zeros(4, 1, 64, 64), [5, 6, 7, 8]
    with torch.profiler.profile() as profile:
        noise = augmentation._draw_noise(images, seeds, at_once=True)
    assert [event.count for event in profile.key_averages() if event.key == "aten::normal_"] == [1]
    assert torch.equal(noise, augmentation._draw_noise(images, seeds, at_once=True))
    assert not torch.equal(noise, augmentation._draw_noise(images, seeds[1:] + seeds[:1], at_once=True))
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), torch.ones(4), atol=0.06, rtol=0)
    assert (torch.corrcoef(noise.flatten(1)) - torch.eye(4)).abs().max() < 0.08
