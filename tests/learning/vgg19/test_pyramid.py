import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.vgg import cfgs, make_layers

from lungseg.learning.vgg19.features import IMAGENET_MEAN, IMAGENET_SD, PixelFeatures
from lungseg.learning.vgg19.pyramid import Pyramid, make_blocks

LAYERS = ("relu1_2", "relu2_1", "relu2_2", "relu3_1")
ENDS = {"relu1_2": 4, "relu2_1": 7, "relu2_2": 9, "relu3_1": 12}  # of torchvision's list of layers


@pytest.fixture
def network() -> torch.nn.Sequential:
    """torchvision's VGG19 up to relu3_1, with random weights and biases."""
    torch.manual_seed(0)
    return make_layers(cfgs["E"][:7]).eval()


@pytest.fixture
def store(network, tmp_path, monkeypatch):
    """Stores weights of the network whose names start with one of some prefixes, where they are found."""

    def write(*prefixes: str):
        state = {f"features.{name}": value.clone() for name, value in network.state_dict().items()}
        path = tmp_path / "vgg19.safetensors"
        save_file({name: value for name, value in state.items() if name.startswith(prefixes)}, path)
        monkeypatch.setenv("LUNGSEG_WEIGHTS", str(tmp_path))
        return path

    return write


@torch.inference_mode()
def test_maps_are_those_of_torchvisions_vgg19_at_each_scale(network, store):
    store("features.")
    images = torch.rand(2, 1, 64, 64)
    blocks = make_blocks(LAYERS, (64, 32, 16))
    maps = Pyramid("imagenet", blocks)(images)
    assert [block.name for block in blocks] == [
        *(f"{layer}@64" for layer in LAYERS),
        *(f"{layer}@32" for layer in LAYERS),
        "relu1_2@16",
    ]
    mean, sd = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_SD).view(3, 1, 1)
    for block, found in zip(blocks, maps, strict=True):
        factor = 64 // block.scale
        level = images.view(2, 1, block.scale, factor, block.scale, factor).mean((3, 5))
        expected = network[: ENDS[block.layer]]((level.expand(-1, 3, -1, -1) - mean) / sd)
        assert found.shape == (2, block.channels, block.side, block.side)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_nothing_deeper_and_no_other_scale_than_needed_is_computed(monkeypatch):
    calls = []
    convolve = torch.nn.functional.conv2d
    monkeypatch.setattr(
        torch.nn.functional,
        "conv2d",
        lambda images, weight, *rest, **more: (
            calls.append((images.shape[-1], len(weight))) or convolve(images, weight, *rest, **more)
        ),
    )
    pyramid = Pyramid("random", (*make_blocks(("relu2_1",), (32,)), *make_blocks(("relu1_2",), (16,))))
    pyramid(torch.rand(1, 1, 64, 64))
    assert calls == [(32, 64), (32, 64), (16, 128), (16, 64), (16, 64)]
    assert not any("relu2_2" in name or "relu3_1" in name for name in pyramid.state_dict())


def test_weights_that_end_early_serve_the_layers_that_they_hold(store):
    store("features.0.", "features.2.")
    images = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        (maps,) = Pyramid("imagenet", make_blocks(("relu1_2",), (32,)))(images)
        assert torch.equal(maps, PixelFeatures("imagenet")(images))


def test_random_weights_repeat_by_their_seed():
    images, blocks = torch.rand(1, 1, 32, 32), make_blocks(LAYERS, (32,))
    first, same, other = (Pyramid("random", blocks, seed)(images) for seed in (0, 0, 1))
    for one, two, three in zip(first, same, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
        assert one.min() == 0
        assert one.max() > 0
