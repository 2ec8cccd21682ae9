import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import label
from torch.nn import functional

from lungseg.approaches.vgg19_context.postprocessing import (
    PostprocessingSettings,
    fill_holes,
    keep_lungs,
    postprocess,
)

SIDE = 64
LUNGS = PostprocessingSettings(smooth=False, fill_holes=False)
HOLES = PostprocessingSettings(smooth=False, keep_lungs=False)
SMOOTH = PostprocessingSettings(keep_lungs=False, fill_holes=False)
OFF = PostprocessingSettings(smooth=False, keep_lungs=False, fill_holes=False)

RIGHT = np.s_[10:54, 10:26]  # 704 pixels, a share of 0.172
LEFT = np.s_[10:54, 38:54]


def lung_map(*regions, value=0.9, shape=(SIDE, SIDE)):
    """A map with a value in rectangles and 0.05 elsewhere."""
    values = np.full(shape, 0.05, np.float32)
    for region in regions:
        values[region] = value
    return values


def clean(values, settings):
    return postprocess(torch.from_numpy(values)[None, None], settings)[0, 0].numpy()


def assert_removed(before, region, settings=LUNGS):
    """The region falls below the threshold, and every value outside it stays as it is."""
    after = clean(before, settings)
    assert after[region].max() < 0.5
    outside = np.ones(before.shape, bool)
    outside[region] = False
    np.testing.assert_array_equal(after[outside], before[outside])


def test_two_lungs_stay_as_they_are_to_the_last_bit():
    values = lung_map(RIGHT, LEFT)
    values += np.random.default_rng(0).uniform(0, 0.05, values.shape).astype(np.float32)
    settings = PostprocessingSettings(smooth=False)
    np.testing.assert_array_equal(clean(values, settings), values)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("settings", [PostprocessingSettings(), LUNGS, HOLES])
def test_an_empty_a_full_and_an_undecided_map_stay(value, settings):
    values = np.full((SIDE, SIDE), value, np.float32)
    np.testing.assert_allclose(clean(values, settings), values, atol=1e-6)


def test_faint_lungs_below_the_threshold_stay():
    values = lung_map(RIGHT, LEFT, value=0.45)
    np.testing.assert_array_equal(clean(values, PostprocessingSettings(smooth=False)), values)


def test_specks_go():
    specks = [np.s_[5:7, 5:7], np.s_[30:33, 31:33], np.s_[60, 63]]
    after = clean(lung_map(RIGHT, LEFT, *specks), LUNGS)
    np.testing.assert_array_equal(after > 0.5, lung_map(RIGHT, LEFT) > 0.5)


def test_a_map_of_specks_alone_keeps_one():
    after = clean(lung_map(np.s_[5:7, 5:7], np.s_[30:34, 30:33], np.s_[50:52, 8:10]), LUNGS)
    np.testing.assert_array_equal(after > 0.5, lung_map(np.s_[30:34, 30:33]) > 0.5)


@pytest.mark.parametrize(
    "blob",
    [
        np.s_[55:63, 40:50],  # below the left lung, as air in the stomach: a share of 0.02
        np.s_[0:9, 28:36],  # between and above
        np.s_[25:40, 57:63],  # at the side of the left lung
    ],
)
def test_a_third_blob_goes_though_it_is_large_enough_for_a_lung(blob):
    assert_removed(lung_map(RIGHT, LEFT, blob), blob)


@pytest.mark.parametrize("blob", [np.s_[55:63, 40:50], np.s_[25:40, 57:63], np.s_[25:40, 1:7]])
def test_lungs_that_touch_stay_and_the_second_largest_blob_goes(blob):
    assert_removed(lung_map(RIGHT, LEFT, np.s_[14:17, 26:38], blob), blob)


def test_a_lung_of_fair_size_stays_beside_a_broad_first_one():
    # Cut by the border, a single lung is as broad as high; the other must not be taken for dirt.
    values = lung_map(np.s_[44:64, 6:28], np.s_[46:64, 38:56])
    np.testing.assert_array_equal(clean(values, LUNGS), values)


def test_lungs_that_reach_over_the_border_stay():
    values = lung_map(np.s_[0:40, 0:18], np.s_[0:44, 44:64])
    np.testing.assert_array_equal(clean(values, PostprocessingSettings(smooth=False)), values)


@pytest.mark.parametrize(
    "blob",
    [
        np.s_[30:34, 44:52],  # a share of 0.008: too small
        np.s_[55:63, 44:54],  # lower than the lung
        np.s_[0:9, 44:54],  # higher than the lung
        np.s_[55:63, 12:22],  # below the lung
    ],
)
def test_no_blob_becomes_the_second_lung_where_one_is_missing(blob):
    assert_removed(lung_map(RIGHT, blob), blob)


def test_a_blob_in_a_bay_of_the_only_lung_is_no_second_lung():
    values = lung_map(np.s_[10:54, 10:30])
    values[24:40, 20:30] = 0.05
    values[28:36, 23:30] = 0.9  # a share of 0.0137, in the lung's own rows and columns
    assert_removed(values, np.s_[28:36, 23:30])


def test_what_touches_a_lung_at_a_corner_is_part_of_it():
    values = lung_map(RIGHT, LEFT, np.s_[54:57, 26:29])
    np.testing.assert_array_equal(clean(values, LUNGS), values)


def test_a_small_lung_stays_beside_a_large_one():
    values = lung_map(RIGHT, np.s_[14:24, 42:50])  # a share of 0.0195, as the smallest of readers' masks
    np.testing.assert_array_equal(clean(values, LUNGS), values)


def test_both_parts_of_a_lung_cut_in_two_stay():
    values = lung_map(RIGHT, LEFT)
    values[36:39, 38:54] = 0.1  # leaves 15 rows of 41, more than a quarter of 26
    np.testing.assert_array_equal(clean(values, LUNGS), values)


def test_the_least_share_is_a_share_of_the_image():
    values = lung_map(RIGHT, np.s_[20:30, 42:50])  # 80 of 4096 pixels: 0.0195
    assert (keep_lungs(values, 0.019)[20:30, 42:50] == 0.9).all()
    assert (keep_lungs(values, 0.02)[20:30, 42:50] < 0.5).all()


def test_what_goes_leaves_no_ring_at_a_lower_threshold_and_at_any_size():
    rows, columns = np.mgrid[:SIDE, :SIDE]
    blob = np.exp(-((rows - 58) ** 2 + (columns - 32) ** 2) / 8).astype(np.float32)
    after = clean(np.maximum(lung_map(RIGHT, LEFT), blob), LUNGS)
    enlarged = functional.interpolate(torch.from_numpy(after)[None, None], (512, 512), mode="bilinear")
    for threshold in (0.06, 0.3, 0.45, 0.5, 0.55):
        assert label(enlarged[0, 0].numpy() > threshold, np.ones((3, 3)))[1] == 2


def test_what_goes_sinks_to_where_it_hangs_together_with_a_lung():
    values = lung_map(RIGHT, LEFT)
    values[55:62, 45] = 0.8
    values[54, 45] = 0.33  # the saddle: joined above 0.3, apart above 0.35
    after = clean(values, LUNGS)
    np.testing.assert_allclose(after[55:62, 45], 0.3, atol=1e-6)
    assert after[54, 45] == np.float32(0.33)
    np.testing.assert_array_equal(after[:54], values[:54])


def test_the_boundary_between_pixels_stays_where_something_goes_or_is_filled():
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ramp = 1 / (1 + np.exp(np.maximum(abs(rows - 32) - 22.3, abs(columns - 17.6) - 8.4)))
    values = np.maximum(ramp, ramp[:, ::-1]).astype(np.float32)
    dirty = values.copy()
    dirty[61:63, 30:33], dirty[30:32, 17:19] = 0.9, 0.1
    up = [functional.interpolate(torch.from_numpy(v)[None, None], (512, 512), mode="bilinear") >= 0.5
          for v in (values, clean(dirty, PostprocessingSettings(smooth=False)))]  # fmt: skip
    assert torch.equal(*up)


def test_a_hole_is_filled_and_nothing_else_changes():
    values = lung_map(RIGHT, LEFT)
    values[30:34, 16:20] = 0.1
    after = clean(values, HOLES)
    assert after[30:34, 16:20].min() > 0.5
    values[30:34, 16:20] = after[30:34, 16:20]
    np.testing.assert_array_equal(after, values)


def test_a_hole_that_meets_the_outside_at_a_corner_is_filled():
    values = lung_map(RIGHT)
    values[10, 10] = values[11, 11] = 0.1
    after = clean(values, HOLES)
    assert after[11, 11] > 0.5
    assert after[10, 10] == np.float32(0.1)


def test_a_speck_within_a_hole_is_filled_with_it():
    values = lung_map(RIGHT, LEFT)
    values[28:36, 14:22] = 0.1
    values[31:33, 17:19] = 0.9
    after = clean(values, PostprocessingSettings(smooth=False, largest_hole=0.016))  # 64 pixels: 0.0156
    assert after[28:36, 14:22].min() > 0.5
    assert clean(values, PostprocessingSettings(smooth=False, largest_hole=0.015))[28, 14] < 0.5


def test_the_mediastinum_stays_open_where_the_lungs_touch_above_and_below():
    values = lung_map(RIGHT, LEFT, np.s_[12:15, 26:38], np.s_[48:51, 26:38])
    np.testing.assert_array_equal(clean(values, PostprocessingSettings(smooth=False)), values)


def test_a_narrow_gap_between_lungs_that_touch_twice_stays_open_whatever_its_size():
    # 2 columns of 20 rows, a share of 0.0098, with 6 rows of lung above and below it.
    values = lung_map(np.s_[10:54, 10:31], np.s_[10:54, 33:54], np.s_[12:15, 31:33], np.s_[35:38, 31:33])
    np.testing.assert_array_equal(clean(values, HOLES), values)


def test_a_bay_at_the_images_border_is_no_hole():
    values = lung_map(np.s_[20:64, 10:30], np.s_[10:64, 38:54])
    values[60:64, 16:20] = 0.1
    np.testing.assert_array_equal(clean(values, HOLES), values)


def test_a_hole_is_filled_where_the_lung_covers_the_whole_border():
    values = np.full((SIDE, SIDE), 0.9, np.float32)
    values[30:33, 30:33] = 0.2
    assert clean(values, HOLES).min() > 0.5


def test_holes_at_the_threshold_itself_are_filled_and_lung_at_it_is_not_changed():
    values = lung_map(RIGHT)
    values[30:32, 15:17] = 0.5
    values[10, 10:26] = 0.5
    after = fill_holes(values, 0.01)
    assert after[30:32, 15:17].min() > 0.5
    np.testing.assert_array_equal(after[10], values[10])


def test_smoothing_is_a_gaussian_of_a_share_of_the_shorter_side():
    values = np.zeros((101, 151), np.float32)
    values[50, 75] = 1
    after = clean(values, PostprocessingSettings(sigma=0.03, keep_lungs=False, fill_holes=False))
    sigma, offsets = 3.03, np.arange(-9, 10)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    expected = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(after[41:60, 66:85], expected, atol=1e-6)


def test_the_border_is_repeated_so_that_a_cut_lung_does_not_fade_there():
    values = lung_map(np.s_[0:40, 0:18])
    np.testing.assert_allclose(clean(values, SMOOTH)[:20, :8], 0.9, atol=1e-6)


def test_each_step_can_be_switched_off():
    values = lung_map(RIGHT, LEFT, np.s_[60:62, 30:32])
    values[30:34, 16:20] = 0.1
    np.testing.assert_array_equal(clean(values, OFF), values)
    assert (clean(values, LUNGS)[30:34, 16:20] == np.float32(0.1)).all()
    assert (clean(values, HOLES)[60:62, 30:32] == np.float32(0.9)).all()


def test_a_map_that_is_not_square():
    values = lung_map(np.s_[4:44, 20:50], np.s_[4:44, 70:100], np.s_[46:48, 60:64], shape=(48, 120))
    values[20:23, 30:33] = 0
    expected = lung_map(np.s_[4:44, 20:50], np.s_[4:44, 70:100], shape=(48, 120)) > 0.5
    np.testing.assert_array_equal(clean(values, PostprocessingSettings(smooth=False)) > 0.5, expected)


def test_a_batch_equals_its_maps_one_by_one_and_is_left_alone():
    maps = torch.rand(5, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    maps = functional.avg_pool2d(maps, 5, 1, 2, count_include_pad=False).mul(3).sub(1).clamp(0, 1)
    before = maps.clone()
    together = postprocess(maps, PostprocessingSettings())
    assert together.shape == maps.shape
    assert together.dtype == torch.float32
    assert torch.equal(maps, before)
    assert not torch.equal(together, maps)
    for index in range(5):
        assert torch.equal(postprocess(maps[index : index + 1], PostprocessingSettings())[0], together[index])


def test_random_maps_stay_in_range_and_gain_no_component():
    maps = torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    after = postprocess(maps, PostprocessingSettings(smooth=False))
    assert after.min() >= 0
    assert after.max() <= 1
    for old, new in zip(maps.numpy(), after.numpy(), strict=True):
        counts = [label(values[0] > 0.5, np.ones((3, 3)))[1] for values in (old, new)]
        assert 1 <= counts[1] <= counts[0]


@pytest.mark.parametrize(
    "maps",
    [
        torch.zeros(1, 1, 8, 8, dtype=torch.float64),
        torch.zeros(1, 1, 8, 8, dtype=torch.bool),
        torch.zeros(1, 8, 8),
        torch.zeros(1, 2, 8, 8),
    ],
)
def test_another_dtype_or_shape_is_refused(maps):
    with pytest.raises(ValueError, match="maps must be float32, N x 1 x H x W, got torch"):
        postprocess(maps, PostprocessingSettings())


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_value_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"maps must lie in \[0, 1\]"):
        postprocess(torch.full((1, 1, 8, 8), value), PostprocessingSettings())


@pytest.mark.parametrize("key", [{"sigma": 0}, {"largest_hole": 0.1}, {"least_share": -1}, {"sigmas": 0.01}])
def test_settings_refuse_what_makes_no_sense(key):
    with pytest.raises(ValidationError, match=next(iter(key))):
        PostprocessingSettings(**key)
