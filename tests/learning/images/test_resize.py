import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.learning.images.resize import (
    compute_axis_weights,
    resize_maps,
    resize_on_device,
    shrink_mask,
    to_batch,
)
from lungseg.system.runtime import be_deterministic


def test_three_pixels_shrink_to_two_by_their_shares_of_the_area():
    # Each new pixel covers one and a half old ones: (a + b / 2) / 1.5 and (b / 2 + c) / 1.5.
    expected = [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(compute_axis_weights(3, 2).toarray(), expected, atol=1e-7)


def test_the_value_of_a_shrunk_mask_is_the_share_of_lung():
    mask = np.zeros((3, 3), bool)
    mask[0, 0] = mask[1, 1] = True
    # Top left cell: a whole pixel and a quarter of one, of 2.25.
    expected = np.array([[1.25, 0.25], [0.25, 0.25]]) / 2.25
    np.testing.assert_allclose(shrink_mask(mask, 2), expected, atol=1e-6)


@pytest.mark.parametrize("size", [7, 48, 127, 128])
def test_shrinking_keeps_the_lung_area(size):
    mask = np.random.default_rng(0).random((301, 512)) < 0.3
    share = shrink_mask(mask, size)
    assert share.dtype == np.float32
    assert share.shape == (size, size)
    assert share.mean() == pytest.approx(mask.mean(), abs=1e-6)


def test_an_integer_ratio_is_the_mean_of_blocks():
    image = np.random.default_rng(1).random((8, 12)).astype(np.float32)
    expected = image.reshape(4, 2, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(to_batch([image], 4)[0, 0].numpy(), expected, atol=1e-6)


def test_enlarging_is_bilinear():
    image = np.random.default_rng(2).random((5, 9)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], (16, 16), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(to_batch([image], 16), expected, atol=1e-6, rtol=0)


def test_the_same_size_is_left_as_it_is():
    image = np.random.default_rng(3).random((6, 6)).astype(np.float32)
    np.testing.assert_array_equal(to_batch([image], 6)[0, 0].numpy(), image)


def test_a_batch_of_images_of_different_sizes():
    images = [np.full(shape, value, np.float32) for shape, value in [((1, 1), 0.2), ((30, 7), 1.0)]]
    batch = to_batch(images, 4)
    assert batch.shape == (2, 1, 4, 4)
    assert batch.dtype == torch.float32
    assert batch.max() <= 1
    np.testing.assert_allclose(batch.mean(dim=(1, 2, 3)).numpy(), [0.2, 1.0], atol=1e-6)


def test_maps_return_at_the_size_and_place_of_their_images():
    maps = torch.stack([torch.full((1, 4, 4), value) for value in (0.1, 0.5, 0.9)])
    sizes = [(8, 6), (4, 4), (8, 6)]
    resized = resize_maps(maps, sizes)
    assert [array.shape for array in resized] == sizes
    assert all(array.dtype == np.float32 for array in resized)
    assert [round(float(array.mean()), 6) for array in resized] == [0.1, 0.5, 0.9]


def test_a_map_is_resized_bilinearly_by_pixel_centres():
    resized = resize_maps(torch.tensor([[[[0.0, 1.0]]]]), [(1, 4)])[0]
    np.testing.assert_allclose(resized, [[0, 0.25, 0.75, 1]], atol=1e-6)


def test_maps_are_kept_within_their_range_and_low_precision_is_widened():
    maps = torch.tensor([-0.5, 0.5, 1.5], dtype=torch.bfloat16).view(3, 1, 1, 1)
    resized = resize_maps(maps, [(2, 2)] * 3)
    assert [float(array[0, 0]) for array in resized] == [0, 0.5, 1]


def test_a_map_without_a_size_is_refused():
    with pytest.raises(ValueError, match="2 maps, but 1 sizes"):
        resize_maps(torch.zeros(2, 1, 4, 4), [(4, 4)])


@pytest.mark.parametrize("size", [(8, 8), (13, 21), (4, 9), (4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_map_is_enlarged_to_the_bits_of_interpolate_by_one_operation(size, layout):
    maps = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    expected = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(resize_on_device(maps, size), expected)
    # What a deterministic GPU would do shows on a device without data: indexing in place of one operation.
    names, maps = [], maps.to("meta")

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    be_deterministic()
    with Names():
        assert resize_on_device(maps, size).shape == (3, *size)
    doubtful = [name for name in names if "upsample" in name or "index" in name]
    assert doubtful == (["upsample_bilinear2d"] if size != (4, 4) else [])


def test_a_map_that_shrinks_along_an_axis_is_antialiased():
    maps = torch.rand((2, 1, 9, 4), generator=torch.Generator().manual_seed(0))
    smooth = {"mode": "bilinear", "align_corners": False, "antialias": True}
    expected = torch.nn.functional.interpolate(maps, (5, 8), **smooth)[:, 0]
    assert torch.equal(resize_on_device(maps, (5, 8)), expected)
