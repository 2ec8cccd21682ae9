import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional
from torchvision.models import resnet18, resnet50, resnet101

from lungseg.approaches.deeplabv3plus.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DeepLabV3Plus,
    NetworkSettings,
    group_parameters,
    list_backbone_shapes,
    load_backbone,
)
from lungseg.learning.images.resize import BilinearUpsampling
from lungseg.system.errors import InputError

TOPOLOGIES = ["standard", "smp", "seed"]
# Prefixes in segmentation_models_pytorch and here, the more specific ones first.
SMP_PREFIXES = {
    "encoder.": "backbone.",
    "decoder.aspp.0.convs.4.1.": "aspp.pooling.0.",
    "decoder.aspp.0.convs.4.2.": "aspp.pooling.1.",
    "decoder.aspp.0.convs.": "aspp.branches.",
    "decoder.aspp.0.project.": "aspp.project.",
    "decoder.aspp.1.": "after_aspp.0.",
    "decoder.aspp.2.": "after_aspp.1.",
    "decoder.block1.": "low_level.",
    "decoder.block2.": "decoder.0.",
    "segmentation_head.0.": "logit.",
}


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the library's DeepLabV3Plus under the names of our network of topology "smp"."""
    found = {}
    for name, value in state.items():
        prefix = next(prefix for prefix in SMP_PREFIXES if name.startswith(prefix))
        found[SMP_PREFIXES[prefix] + name.removeprefix(prefix)] = value
    return found


def build(**settings):
    torch.manual_seed(0)
    return DeepLabV3Plus(NetworkSettings(**settings))


def make_resnet(state: dict[str, torch.Tensor], **rest) -> torch.nn.Module:
    """Return torchvision's ResNet50 with these weights, for prediction; none are drawn first."""
    with torch.device("meta"):
        network = resnet50(weights=None, **rest)
    network.load_state_dict(state, assign=True)
    return network.eval()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def imagenet_like():
    torch.manual_seed(1)
    return resnet50(weights=None).state_dict()


@pytest.fixture(scope="module")
def seed_network():
    return build(topology="seed").eval()


@torch.no_grad()
@pytest.mark.parametrize("stride", [16, 8])
def test_weights_of_smp_give_its_logits(stride):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    peer = smp.DeepLabV3Plus(
        "resnet50", encoder_weights=None, in_channels=3, classes=1, encoder_output_stride=stride
    )
    images = torch.rand(2, 1, 96, 64)
    normalised = (images - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGENET_STD).view(
        1, 3, 1, 1
    )
    peer.train()(normalised)  # statistics of batch norm that aren't their defaults
    peer.segmentation_head[0].weight *= 100  # logits of about 1
    network = build(topology="smp", output_stride=stride).eval()
    network.load_state_dict(renamed(peer.state_dict()))
    expected = peer.eval()(normalised)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=0)


def test_the_seed_has_the_parameters_of_the_original(seed_network):
    assert 11.8e6 < parameters(seed_network) < 12.0e6
    # keras.io's example prints 11,857,236 for 20 classes. Beyond ours that counts moving means and variances,
    # and biases of all of ResNet50's convolutions and of the one after image pooling.
    state = seed_network.state_dict()
    moving = sum(value.numel() for name, value in state.items() if "running" in name)
    biases = (
        sum(value.numel() for name, value in state.items() if "backbone" in name and "mean" in name) + 256
    )
    classes = 19 * (256 + 1)
    assert parameters(seed_network) + moving + biases + classes == 11_857_236


def test_the_seed_is_tapped_inside_the_last_blocks(seed_network):
    with torch.no_grad():
        low, high = seed_network.backbone(torch.rand(1, 3, 64, 96))
    assert low.shape == (1, 64, 16, 24)
    assert high.shape == (1, 256, 4, 6)
    assert low.min() == 0
    assert high.min() == 0
    assert not any("layer4" in name or "layer3.5.conv3" in name for name in seed_network.state_dict())


@torch.no_grad()
def test_the_low_tap_of_the_seed_is_torchvisions_second_relu(seed_network, imagenet_like):
    network = build(topology="seed").eval()
    load_backbone(network, imagenet_like)
    whole = make_resnet(imagenet_like)
    seen = {}
    whole.layer1[2].conv3.register_forward_pre_hook(lambda module, inputs: seen.update(low=inputs[0]))
    whole.layer3[5].conv3.register_forward_pre_hook(lambda module, inputs: seen.update(high=inputs[0]))
    images = torch.rand(1, 3, 64, 64)
    whole(images)
    low, high = network.backbone(images)
    torch.testing.assert_close(low, seen["low"])
    torch.testing.assert_close(high, seen["high"])


@torch.no_grad()
def test_the_standard_backbone_is_torchvisions(imagenet_like):
    network = build().eval()
    load_backbone(network, {name: value.half() for name, value in imagenet_like.items()})
    rounded = {name: value.half().to(value.dtype) for name, value in imagenet_like.items()}
    whole = make_resnet(rounded, replace_stride_with_dilation=[False, False, True])
    seen = {}
    whole.layer1.register_forward_hook(lambda module, inputs, output: seen.update(low=output))
    whole.layer4.register_forward_hook(lambda module, inputs, output: seen.update(high=output))
    images = torch.rand(1, 3, 64, 64)
    whole(images)
    low, high = network.backbone(images)
    torch.testing.assert_close(low, seen["low"])
    torch.testing.assert_close(high, seen["high"])
    assert high.shape == (1, 2048, 4, 4)


@torch.no_grad()
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("stride", [16, 8])
def test_any_size_comes_back_as_it_went_in(topology, stride, short_backbone):
    network = build(topology=topology, output_stride=stride).eval()
    for height, width in [(32, 48), (45, 33), (1, 1)]:
        logits = network(torch.rand(1, 1, height, width))
        assert logits.shape == (1, 1, height, width)
        assert logits.isfinite().all()


@torch.no_grad()
def test_an_odd_size_is_extended_and_not_stretched(seed_network):
    images = torch.rand(1, 1, 32, 32)
    images[..., 27:] = images[..., 26:27]
    torch.testing.assert_close(seed_network(images[..., :27]), seed_network(images)[..., :27])


def test_a_batch_of_one_can_be_trained_on(short_backbone):
    network = build(topology="seed").train()
    before = network.aspp.pooling[1].running_mean.clone()
    network(torch.rand(1, 1, 64, 64)).mean().backward()
    assert network.aspp.pooling[0].weight.grad.isfinite().all()
    assert torch.equal(network.aspp.pooling[1].running_mean, before)
    network(torch.rand(2, 1, 64, 64))
    assert not torch.equal(network.aspp.pooling[1].running_mean, before)


def test_a_norm_that_is_shared_by_processes_is_never_left_out(short_backbone):
    class Counted(torch.nn.SyncBatchNorm):
        calls = 0

        def forward(self, x):
            Counted.calls += 1
            return x

    network = build(topology="seed").train()
    network.aspp.pooling[1] = Counted(network.aspp.pooling[1].num_features)
    network.aspp(torch.randn(1, 256, 4, 4))
    assert Counted.calls == 1  # the other processes, with more images, wait for this one's call


@pytest.mark.parametrize("n", [1, 2])
def test_bfloat16_gives_float32_logits(n, short_backbone):
    network = build(topology="seed").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.rand(n, 1, 64, 64))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_every_parameter_gets_a_gradient(short_backbone):
    for topology in TOPOLOGIES:
        network = build(topology=topology)
        network(torch.rand(2, 1, 64, 64)).square().sum().backward()
        without = [name for name, value in network.named_parameters() if value.grad is None]
        assert without == []


@torch.no_grad()
def test_channels_last_gives_the_same_logits(seed_network):
    images = torch.rand(2, 1, 48, 48)
    expected = seed_network(images)
    network = build(topology="seed").eval().to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        network(images.to(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-4
    )


def test_a_seed_fixes_the_start(short_backbone):
    first, again = build(topology="seed").state_dict(), build(topology="seed").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(name in first for name in ("mean", "std"))


def test_settings_change_the_network(short_backbone):
    plain = build(topology="seed")
    assert parameters(build(topology="seed", separable=True)) < parameters(plain)
    assert len(build(topology="seed", decoder_convolutions=3).decoder) == 3
    network = build(topology="seed", rates=(1, 2, 3), dropout=0.25)
    assert [branch[0].dilation[0] for branch in network.aspp.branches] == [1, 1, 2, 3]
    assert network.aspp.project[-1].p == 0.25


def test_the_rates_span_the_same_part_of_the_image_at_stride_8(short_backbone):
    for stride, rates in [(16, [6, 12, 18]), (8, [12, 24, 36])]:
        branches = build(topology="seed", output_stride=stride).aspp.branches[1:]
        assert [branch[0].dilation[0] for branch in branches] == rates


@pytest.mark.parametrize(
    "wrong", [{"topologie": "seed"}, {"output_stride": 32}, {"rates": (0, 1, 2)}, {"dropout": 1.0}]
)
def test_a_setting_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        NetworkSettings(**wrong)


@pytest.mark.parametrize("other", [resnet18, resnet101])
def test_weights_of_another_network_are_refused(other, seed_network):
    before = seed_network.backbone.conv1.weight.clone()
    with pytest.raises(InputError, match="aren't resnet50's"):
        load_backbone(seed_network, other(weights=None).state_dict())
    assert torch.equal(seed_network.backbone.conv1.weight, before)


def test_weights_without_a_layer_are_refused(imagenet_like, seed_network):
    lacking = {name: value for name, value in imagenet_like.items() if name != "layer2.0.bn1.weight"}
    with pytest.raises(InputError, match=r"layer2\.0\.bn1\.weight"):
        load_backbone(seed_network, lacking)


def test_the_shapes_that_are_asked_for_are_enough_to_load(imagenet_like):
    network = build(topology="seed")
    load_backbone(network, {name: imagenet_like[name] for name in list_backbone_shapes(network)})
    assert torch.equal(network.backbone.layer3[5].conv2.weight, imagenet_like["layer3.5.conv2.weight"])


def test_the_groups_hold_every_parameter_once(short_backbone):
    network = build(topology="seed")
    backbone, head = group_parameters(network)
    ids = {id(parameter) for parameter in [*backbone, *head]}
    assert len(ids) == len(backbone) + len(head) == len(list(network.parameters()))
    assert any(parameter is network.backbone.conv1.weight for parameter in backbone)
    assert any(parameter is network.logit.weight for parameter in head)


@pytest.mark.parametrize("topology", ["smp", "seed"])
def test_enlarging_by_products_as_on_a_gpu_gives_the_same_logits(topology, monkeypatch, short_backbone):
    network, images = build(topology=topology).eval(), torch.rand(1, 1, 50, 67)
    with torch.inference_mode():
        expected = network(images)
        monkeypatch.setattr(BilinearUpsampling, "forward", BilinearUpsampling.multiply)
        found = network(images)
    assert not torch.equal(found, expected)  # they are rounded differently, so both were computed
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("side", "padded"), [(32, 0), (33, 1)])
def test_images_are_padded_only_where_something_is_missing(side, padded, short_backbone, monkeypatch):
    calls, pad = [], functional.pad
    monkeypatch.setattr(
        functional, "pad", lambda *given, **keys: calls.append(given[1]) or pad(*given, **keys)
    )
    network = DeepLabV3Plus(NetworkSettings(topology="seed")).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 1, side, 32)).shape == (1, 1, side, 32)
    assert len(calls) == padded
