"""Bilinear enlarging in a network, as it is computed on a GPU: products with small matrices."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.learning.images.resize import BilinearUpsampling, _to_batch_on_device, to_batch

CASES = [((4, 4), (16, 16)), ((3, 7), (13, 20)), ((1, 5), (6, 5)), ((5, 9), (5, 40)), ((7, 7), (1, 9))]


def make_maps(channels, size, dtype=torch.float32):
    maps = torch.rand((2, channels, *size), generator=torch.Generator().manual_seed(0))
    return maps.to(dtype, memory_format=torch.channels_last)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("old", "new"), CASES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("channels", [1, 3])
def test_maps_and_gradients_are_those_of_interpolate(aligned, old, new, layout, channels):
    maps = make_maps(channels, old).contiguous(memory_format=layout).requires_grad_()
    expected = interpolate(maps, new, mode="bilinear", align_corners=aligned)
    found = BilinearUpsampling(aligned).multiply(maps, new)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weights = torch.rand_like(expected)
    one, two = (torch.autograd.grad(each, maps, weights)[0] for each in (found, expected))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aligned", [False, True])
def test_the_gradient_is_right(aligned):
    upsampling = BilinearUpsampling(aligned)
    maps = make_maps(2, (3, 4), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: upsampling.multiply(given, (7, 9)), maps)


def test_bfloat16_is_rounded_once_and_autocast_changes_nothing():
    maps = make_maps(3, (5, 6), torch.bfloat16)
    exact = interpolate(maps.double(), (17, 24), mode="bilinear", align_corners=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = BilinearUpsampling(True).multiply(maps, (17, 24))
    assert found.dtype == torch.bfloat16
    # A value between two bfloat16 numbers may be rounded to the other one: 2^-8 of a value below 1.
    torch.testing.assert_close(found.double(), exact, atol=2**-8, rtol=0)
    assert (found == exact.to(torch.bfloat16)).double().mean() > 0.99


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_nothing_is_gathered_or_sorted():
    maps = make_maps(3, (4, 4)).requires_grad_()
    with Names() as names:
        BilinearUpsampling(False).multiply(maps, (16, 16)).sum().backward()
    assert names.found & {"bmm", "mm"}
    doubtful = ("upsample", "index", "sort", "scatter", "gather", "local_scalar")
    assert not [name for name in names.found if any(word in name for word in doubtful)]


def test_weights_first_made_for_a_prediction_serve_a_training():
    upsampling, maps = BilinearUpsampling(False), make_maps(3, (4, 4))
    with torch.inference_mode():
        upsampling.multiply(maps, (8, 8))
    upsampling = copy.deepcopy(upsampling)
    given = maps.clone().requires_grad_()
    upsampling.multiply(given, (8, 8)).sum().backward()
    assert given.grad.sum() == pytest.approx(2 * 3 * 8 * 8)
    assert not upsampling.state_dict()


@pytest.mark.parametrize("shape", [(31, 70), (9, 16), (16, 50), (16, 16)])
def test_images_resized_on_a_device_are_those_of_the_host(shape):
    images = [np.random.default_rng(0).random(shape, np.float32), np.ones((40, 40), np.float32)]
    found = _to_batch_on_device(images, 16, torch.device("cpu"))
    assert (found.min() >= 0, found.max() <= 1) == (True, True)
    torch.testing.assert_close(found, to_batch(images, 16), atol=1e-6, rtol=0)


def test_a_resize_to_the_same_size_looks_up_no_weights(monkeypatch):
    monkeypatch.setattr("lungseg.learning.images.resize.compute_axis_weights", None)
    image = np.asfortranarray(np.random.default_rng(3).random((6, 6)) * 2 - 0.5)
    batch = to_batch([image], 6)
    np.testing.assert_array_equal(batch[0, 0].numpy(), np.clip(image, 0, 1).astype(np.float32))
