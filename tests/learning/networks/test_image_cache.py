import os

import numpy as np
import pytest
import torch

from lungseg.data.memory import RememberedSample
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.learning.networks.image_cache import Images, read_images
from lungseg.system.errors import InputError


def cached(root) -> list:
    return sorted((root / "lungseg" / "images").rglob("*.npy"))


@pytest.fixture
def cache(tmp_path):
    """Where the fixture of all tests puts the cache."""
    return tmp_path / "cache"


def test_a_batch_holds_resized_images_and_masks(discs):
    samples = discs(3)
    images, masks = read_images(samples, 32).read_batch([2, 0])
    assert images.dtype == masks.dtype == torch.float32
    assert images.shape == masks.shape == (2, 1, 32, 32)
    for index, image, mask in zip((2, 0), images, masks, strict=True):
        np.testing.assert_allclose(image, to_batch([samples[index].image()], 32)[0], atol=1e-5)
        np.testing.assert_allclose(mask[0], shrink_mask(samples[index].mask(), 32), atol=1e-5)


def test_images_are_read_once_whatever_asks_for_them(discs, cache):
    samples = discs(3)
    first = read_images(samples, 32).read_batch([0, 1, 2])
    assert len(cached(cache)) == 3
    for sample in samples:  # what is cached is not decoded again
        sample.image = sample.mask = None
    again = read_images(list(reversed(samples)), 32).read_batch([2, 1, 0])
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_a_changed_image_or_mask_is_read_again(discs):
    (sample,) = discs(1)
    before, _ = read_images([sample], 32).read_batch([0])
    sample._image = 1 - sample._image
    after, masks = read_images([sample], 32).read_batch([0])
    torch.testing.assert_close(after, 1 - before, atol=1e-4, rtol=0)
    sample._mask = ~sample._mask
    torch.testing.assert_close(read_images([sample], 32).read_batch([0])[1], 1 - masks, atol=1e-4, rtol=0)


def test_each_size_has_files_of_its_own(discs, cache):
    samples = discs(2)
    assert read_images(samples, 32).read_batch([0])[0].shape[-1] == 32
    assert read_images(samples, 48).read_batch([0])[0].shape[-1] == 48
    assert len(cached(cache)) == 4


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"not an array"])
def test_a_damaged_file_is_made_again(damage, discs, cache):
    samples = discs(1)
    expected, _ = read_images(samples, 32).read_batch([0])
    (file,) = cached(cache)
    file.write_bytes(damage)
    assert torch.equal(read_images(samples, 32).read_batch([0])[0], expected)


def test_a_file_cut_short_is_made_again(discs, cache):
    samples = discs(1)
    expected, _ = read_images(samples, 32).read_batch([0])
    (file,) = cached(cache)
    os.truncate(file, file.stat().st_size - 1)
    assert torch.equal(read_images(samples, 32).read_batch([0])[0], expected)


def test_a_file_that_vanishes_is_a_sentence(discs, cache):
    images = read_images(discs(1), 32)
    cached(cache)[0].unlink()
    with pytest.raises(InputError, match="missing or damaged"):
        images.read_batch([0])


def test_without_a_place_for_a_cache_images_stay_in_memory(discs, tmp_path, monkeypatch):
    shut = tmp_path / "a file"
    shut.write_text("")
    monkeypatch.setenv("LUNGSEG_CACHE", str(shut))
    steps = []
    images = read_images(discs(3), 32, lambda done, total: steps.append((done, total)))
    assert images.read_batch([0, 1, 2])[0].shape == (3, 1, 32, 32)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_two_classes_that_name_the_same_content_share_no_file(discs, cache):
    """Also where what they make is kept in memory by a wrapper."""
    (sample,) = discs(1)

    class Negative(type(sample)):
        original = sample  # an attribute of somebody else's, which says nothing

        def image(self):
            return 1 - super().image()

    other = Negative(sample.id, sample.image(), sample.mask())
    assert other.content() == sample.content()
    for wrap in (lambda kept: kept, RememberedSample):
        first, second = (read_images([wrap(each)], 32).read_batch([0])[0] for each in (sample, other))
        torch.testing.assert_close(second, 1 - first, atol=1e-4, rtol=0)
    assert len(cached(cache)) == 2


def test_a_file_that_another_process_is_writing_is_left_alone(discs, cache):
    (sample,) = discs(1)
    first = read_images([sample], 32).read_batch([0])
    (file,) = cached(cache)
    file.unlink()
    theirs = file.with_name(f".{file.name}.part")
    theirs.write_bytes(b"half of it")
    again = read_images([sample], 32).read_batch([0])
    assert torch.equal(first[0], again[0])
    assert theirs.read_bytes() == b"half of it"


def test_a_device_gives_the_same_bits_as_the_host(noise_images):
    data = noise_images(5, size=32)
    data._arrays[0][:, 0, :4] = 0, 1, 32767, 32768
    data._arrays[0][:, 0, 4:6] = 65534, 65535
    data.keep_on(torch.device("cpu"))
    for chosen in ([4, 0, 0], [2]):
        for found, expected in zip(data.gather(torch.tensor(chosen)), data.read_batch(chosen), strict=True):
            assert found.dtype == torch.float32
            assert torch.equal(found, expected)


def test_every_level_is_the_same_on_a_device():
    levels = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    data = Images(["all"], [np.concatenate([levels, levels[:, ::-1]])])
    data.keep_on(torch.device("cpu"))
    for found, expected in zip(data.gather(torch.tensor([0])), data.read_batch([0]), strict=True):
        assert torch.equal(found, expected)


def test_images_are_held_by_a_gpu_with_twenty_times_as_much_free_memory(noise_images, monkeypatch):
    data, free = noise_images(6, size=32), [6 * 2 * 32 * 32 * 2 * 20]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 0))
    assert data.fits_on(torch.device("cuda"))
    assert not data.fits_on(torch.device("cpu"))
    free[0] -= 20
    assert not data.fits_on(torch.device("cuda"))


def test_a_damaged_file_is_named_when_a_device_is_to_hold_it(tmp_path):
    with pytest.raises(InputError, match=r"a\.npy is missing or damaged"):
        Images(["a"], [tmp_path / "a.npy"]).keep_on(torch.device("cpu"))
