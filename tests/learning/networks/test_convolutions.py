import pytest
import torch
from torch import nn

from lungseg.learning.networks import convolutions
from lungseg.learning.networks.convolutions import (
    AtrousConv2d,
    DenseConv2d,
    PointwiseConv2d,
    use_matrix_products,
)

LAYOUTS = [torch.contiguous_format, torch.channels_last]
# Maps lower, narrower, as large and larger than the dilation of 5, and one on which oneDNN's own is used.
SIZES = [(4, 4), (4, 9), (9, 5), (6, 6), (9, 9), (8, 24)]


def maps_and_gradients(convolution, size, layout, autocast=False):
    """Output, and gradients of the input, the weight and the bias, of the same random images."""
    generator = torch.Generator().manual_seed(1)
    dtype = torch.float32 if autocast else convolution.weight.dtype
    images = torch.randn(2, convolution.in_channels, *size, generator=generator).to(dtype)
    images = images.contiguous(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        maps = convolution(images)
    loss = (maps.double() * torch.randn(maps.shape, generator=generator)).sum()
    return maps, *torch.autograd.grad(loss, [images, *convolution.parameters()])


@pytest.fixture
def everything_gains(monkeypatch):
    monkeypatch.setattr(convolutions, "LEAST_SIDE", 1)
    monkeypatch.setattr(convolutions, "LEAST_CHANNELS", 1)


def like(convolution, convolution_class):
    twin = nn.Conv2d.__new__(convolution_class)
    twin.__dict__ = convolution.__dict__
    return twin


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_dilated_convolution_equals_torchs_in_double_precision(layout, size, bias, groups):
    torch.manual_seed(0)
    whole = nn.Conv2d(4, 8, 3, padding=5, dilation=5, bias=bias, groups=groups).double()
    whole = whole.to(memory_format=layout)
    expected = maps_and_gradients(whole, size, torch.contiguous_format)
    found = maps_and_gradients(like(whole, AtrousConv2d), size, layout)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-12, rtol=1e-12)
    assert expected[2].abs().max() > 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (7, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_convolution_equals_torchs_in_double_precision(layout, size, bias):
    torch.manual_seed(0)
    whole = nn.Conv2d(4, 8, 1, bias=bias).double().to(memory_format=layout)
    expected = maps_and_gradients(whole, size, torch.contiguous_format)
    found = maps_and_gradients(like(whole, PointwiseConv2d), size, layout)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_convolution_equals_torchs_in_double_precision(layout, size, bias, everything_gains):
    torch.manual_seed(0)
    whole = nn.Conv2d(4, 8, 3, padding=1, bias=bias).double().to(memory_format=layout)
    expected = maps_and_gradients(whole, size, torch.contiguous_format)
    found = maps_and_gradients(like(whole, DenseConv2d), size, layout)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-12, rtol=1e-12)


def test_a_dense_convolution_of_images_that_learn_nothing(everything_gains):
    convolution = DenseConv2d(4, 8, 3, padding=1).to(memory_format=torch.channels_last)
    images = torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    convolution(images).square().sum().backward()
    found = convolution.weight.grad.clone()
    convolution.zero_grad()
    convolution(images.contiguous()).square().sum().backward()  # torch's own
    torch.testing.assert_close(found, convolution.weight.grad, atol=1e-3, rtol=1e-4)
    convolution.weight.requires_grad_(False)
    learning = images.clone().requires_grad_()
    convolution(learning).sum().backward()
    assert learning.grad is not None


@pytest.mark.parametrize(
    ("channels", "size", "autocast", "gains"),
    [
        ((48, 48), (16, 16), False, True),
        ((48, 48), (16, 15), False, False),
        ((48, 47), (16, 16), False, False),
        ((47, 48), (16, 16), False, False),
        ((48, 48), (16, 16), True, False),
    ],
)
def test_small_maps_few_channels_and_bfloat16_are_left_to_torch(channels, size, autocast, gains, monkeypatch):
    calls, compute = [], convolutions._compute_weight_gradient
    monkeypatch.setattr(
        convolutions, "_compute_weight_gradient", lambda *maps: (calls.append(1), compute(*maps))[1]
    )
    dense = DenseConv2d(*channels, 3, padding=1).to(memory_format=torch.channels_last)
    maps_and_gradients(dense, size, torch.channels_last, autocast)
    assert bool(calls) == gains


@pytest.mark.parametrize(
    ("convolution_class", "options"), [(AtrousConv2d, {"padding": 3, "dilation": 3}), (PointwiseConv2d, {})]
)
def test_bfloat16_is_as_near_to_the_truth_as_torchs_convolution(convolution_class, options):
    torch.manual_seed(0)
    kernel = 3 if options else 1
    whole = nn.Conv2d(64, 64, kernel, bias=False, **options).to(memory_format=torch.channels_last)
    exact = nn.Conv2d(64, 64, kernel, bias=False, **options).double()
    exact.load_state_dict(whole.state_dict())
    truth = maps_and_gradients(exact, (10, 10), torch.channels_last)
    theirs = maps_and_gradients(whole, (10, 10), torch.channels_last, autocast=True)
    ours = maps_and_gradients(like(whole, convolution_class), (10, 10), torch.channels_last, autocast=True)
    assert ours[0].dtype == torch.bfloat16
    assert ours[1].dtype == ours[2].dtype == torch.float32
    for true, one, two in zip(truth, theirs, ours, strict=True):
        apart, usual = ((found.double() - true).norm() / true.norm() for found in (two, one))
        assert 0 < apart < 1.5 * usual


@pytest.mark.parametrize("convolution_class", [AtrousConv2d, DenseConv2d, PointwiseConv2d])
def test_maps_and_gradients_stay_channels_last(convolution_class, everything_gains):
    options = {AtrousConv2d: {"padding": 3, "dilation": 3}, DenseConv2d: {"padding": 1}}.get(
        convolution_class
    )
    convolution = convolution_class(4, 8, 3 if options else 1, bias=False, **(options or {}))
    convolution = convolution.to(memory_format=torch.channels_last)
    maps, *gradients = maps_and_gradients(convolution, (5, 6), torch.channels_last)
    for one in (maps, *gradients):
        assert one.is_contiguous(memory_format=torch.channels_last)


def test_only_convolutions_that_gain_are_replaced_and_they_keep_their_weights():
    network = nn.Sequential(
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Sequential(nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 3, padding=1)),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, padding_mode="reflect"),
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    use_matrix_products(network)
    classes = [type(module) for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert classes == [PointwiseConv2d, AtrousConv2d, nn.Conv2d, DenseConv2d, *[nn.Conv2d] * 4]
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
