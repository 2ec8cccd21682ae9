import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, NetworkSettings
from lungseg.learning.networks.inference import Predictor, fold_norms
from lungseg.learning.networks.settings import TrainingSettings


def lived_in(network: nn.Module) -> nn.Module:
    """Batch norms with statistics and scales of their own, as after a training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in (
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.running_mean, -0.5),
                (module.bias.data, -0.5),
            ):
                values.copy_(torch.rand(values.shape, generator=generator) + low)
    return network.eval()


NETWORKS = ({"topology": "seed"}, {"topology": "seed", "separable": True}, {"topology": "smp"})


@pytest.fixture(params=NETWORKS, ids=str)
def network(request, short_backbone) -> nn.Module:
    torch.manual_seed(0)
    return lived_in(DeepLabV3Plus(NetworkSettings(**request.param)))


@torch.inference_mode()
def test_folding_leaves_no_norm_and_the_same_logits(network):
    images = torch.rand(2, 1, 48, 48)
    expected = network(images)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = fold_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    scale = expected.std()
    torch.testing.assert_close(found(images) / scale, expected / scale, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_that_reads_something_else_is_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    assert isinstance(fold_norms(network)[2], nn.BatchNorm2d)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))

    def forward(self, images):
        return self.layers(images)


def test_a_compiler_that_fails_costs_a_warning(runtime, monkeypatch):
    def broken(network):
        def call(images):
            raise RuntimeError("no compiler here\nand a page of reasons")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(), replace(runtime, compiled=True))
    images = torch.rand(1, 1, 8, 8)
    with pytest.warns(UserWarning, match=r"failed \(no compiler here\): the network runs without it"):
        first = predictor.predict_logits(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(predictor.predict_logits(images), first)  # it is not tried again
    assert predictor.compile_seconds is None
    torch.testing.assert_close(first, network(images), atol=1e-5, rtol=0)


def test_the_time_to_compile_is_kept_apart(runtime, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    predictor = Predictor(lived_in(Small()), TrainingSettings(), replace(runtime, compiled=True))
    predictor.predict_logits(torch.rand(1, 1, 8, 8))
    assert predictor.compile_seconds > 0


def test_a_shape_that_can_not_be_compiled_costs_a_warning_too(runtime, monkeypatch):
    def only_of_one(network):
        def call(images):
            if len(images) > 1:
                raise RuntimeError("no code for this shape")
            return network(images)

        return call

    monkeypatch.setattr(torch, "compile", only_of_one)
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(), replace(runtime, compiled=True))
    predictor.predict_logits(torch.rand(1, 1, 8, 8))
    assert predictor.not_compiled is None
    images = torch.rand(2, 1, 8, 8)
    with pytest.warns(UserWarning, match="no code for this shape"):
        found = predictor.predict_logits(images)
    assert predictor.not_compiled == "no code for this shape"
    torch.testing.assert_close(found, network(images), atol=1e-5, rtol=0)


class Deceiving(nn.Module):
    """By their names the norm follows the convolution; it doesn't."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)

    def forward(self, images):
        return self.conv1(self.bn1(images).relu())


def test_a_network_that_folding_would_change_is_left_as_it_is(runtime):
    network = lived_in(Deceiving())
    network.bn1.running_mean.fill_(0.4)
    settings = TrainingSettings(size=32)
    with pytest.warns(UserWarning, match="can't be folded"):
        predictor = Predictor(network, settings, runtime)
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(predictor.predict_logits(images), network(images), atol=1e-6, rtol=0)


def test_bfloat16_predicts_what_float32_does(runtime, short_backbone):
    torch.manual_seed(0)  # how far single logits go apart depends on the weights
    network = lived_in(DeepLabV3Plus(NetworkSettings()))
    settings = TrainingSettings(size=64)
    images = torch.rand(2, 1, 64, 64)
    wide, narrow = (
        Predictor(network, settings, each).predict_logits(images)
        for each in (runtime, replace(runtime, precision="bfloat16", channels_last=True))
    )
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow / wide.std(), wide / wide.std(), atol=0.2, rtol=0)


def test_while_operations_are_counted_nothing_compiled_is_called(runtime, monkeypatch):
    def compiler(network):
        return lambda images: torch.zeros_like(images)

    monkeypatch.setattr(torch, "compile", compiler)
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(size=32), replace(runtime, compiled=True))
    images = torch.rand(1, 1, 8, 8)
    assert predictor.predict_logits(images).abs().max() == 0
    torch.testing.assert_close(
        predictor.predict_logits(images, counted=True), network(images), atol=1e-5, rtol=0
    )
