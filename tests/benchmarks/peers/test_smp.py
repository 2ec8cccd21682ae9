"""The networks of `benchmarks/peers`: what goes in and comes out, and what is said without their library."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.transforms.functional import normalize

from benchmarks.peers import smp as peers
from lungseg.approaches.base import Approach
from lungseg.approaches.network import NetworkApproach
from lungseg.approaches.registry import APPROACHES
from lungseg.harness.run import benchmark
from lungseg.learning.networks.inference import fold_norms
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.results import read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from lungseg.system.hashing import find_libraries
from lungseg.system.plugins import load_class, validate
from lungseg.system.runtime import Runtime

ROOT = Path(__file__).parents[3]
NAMES = ["SmpUnet", "SmpUnetPlusPlus", "SmpDeepLabV3Plus"]
INSTALL = 'pip install -e ".[peers]"'
SPEC = """
name = "peers"
runtime = { device = "cpu" }
[data]
dataset = "phantom"
count = 12
size = 48
[[approach]]
use = "mean-mask"
size = 24
[[approach]]
use = "benchmarks.peers.smp:SmpDeepLabV3Plus"
name = "peer"
weights = "random"
size = 32
epochs = 2
batch_size = 4
[timing]
enabled = false
"""


@pytest.fixture
def library(monkeypatch):
    """The library, which may not download anything."""
    found = pytest.importorskip(peers.LIBRARY, reason=f"{peers.LIBRARY} isn't installed: {INSTALL}")
    download = f"{peers.LIBRARY}.encoders.hf_hub_download"
    monkeypatch.setattr(download, lambda *_, **__: pytest.fail("downloaded"))
    return found


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, peers.LIBRARY, None)


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    return read_spec(tmp_path / "spec.toml")


def new_approach(name: str, **values) -> NetworkApproach:
    kind = getattr(peers, name)
    settings = kind.Settings(**{"weights": "random", **values})
    return kind(settings, Runtime(torch.device("cpu")))


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.fixture(scope="module", params=NAMES)
def network(request) -> nn.Module:
    """Each network in evaluation mode, with batch norms that do something."""
    pytest.importorskip(peers.LIBRARY, reason=f"{peers.LIBRARY} isn't installed: {INSTALL}")
    torch.manual_seed(0)
    found = new_approach(request.param).build_network().train()
    for norm in norms(found):
        norm.momentum = None  # its statistics become those of the one batch below
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        found(torch.rand(4, 1, 64, 64))
    return found.eval()


def assert_near(logits: Tensor, expected: Tensor) -> None:
    """Equal but for rounding, by the spread of what is expected."""
    spread = float(expected.std())
    assert spread > 1e-3
    torch.testing.assert_close(logits, expected, atol=1e-3 * spread, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_library_one_sentence_says_how_to_install_it(name, no_library):
    approach = new_approach(name)
    assert f"{peers.LIBRARY} can't be imported" in approach.skip()
    assert INSTALL in approach.skip()
    with pytest.raises(InputError) as caught:
        approach.build_network()
    assert str(caught.value) == approach.skip()


def test_a_library_that_breaks_when_it_is_imported_is_named_without_this_machines_folders(
    monkeypatch, tmp_path
):
    monkeypatch.delitem(sys.modules, peers.LIBRARY, raising=False)
    (tmp_path / f"{peers.LIBRARY}.py").write_text(
        "raise RuntimeError('no operator in /home/me/lib/vision.so')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reason = new_approach("SmpUnet").skip()
    assert "RuntimeError: no operator in vision.so" in reason
    assert INSTALL in reason


@pytest.mark.usefixtures("without_figures", "no_library")
def test_without_the_library_a_benchmark_goes_on_with_the_rest_and_says_why(spec, tmp_path):
    benchmark(spec, tmp_path / "out")
    assert set(read_table(tmp_path / "out", "scores")["approach"]) == {"mean-mask"}
    assert INSTALL in read_json(tmp_path / "out" / "run.json")["empty"]["peer"]


@pytest.mark.parametrize(("spec", "ours"), [("cxr704-cpu", "cpu"), ("cxr704", "256")])
def test_the_published_specs_train_every_network_alike(spec, ours, monkeypatch):
    monkeypatch.chdir(ROOT)
    trainings = {}
    for entry in read_spec(Path(f"benchmarks/{spec}.toml")).approach:
        kind = load_class(entry.use, APPROACHES, Approach, "approach")
        settings = validate(kind.Settings, entry.options, entry.name)
        if issubclass(kind, NetworkApproach):
            trainings[entry.name] = settings.model_dump(include=set(TrainingSettings.model_fields))
    own = trainings[f"deeplabv3plus-{ours}"]
    peer = {name: found for name, found in trainings.items() if name.startswith("smp-")}
    assert len(peer) == len(NAMES)
    assert peer == dict.fromkeys(peer, own)
    assert own["weights"] == "imagenet"


@pytest.mark.parametrize(
    ("name", "key", "size", "ways"),
    [
        ("SmpUnetPlusPlus", "size", 100, "multiples of 32 pixels: set it to 96 or 128"),
        ("SmpUnetPlusPlus", "size", 48, "multiples of 32 pixels: set it to 32 or 64"),
        ("SmpDeepLabV3Plus", "size", 100, "multiples of 16 pixels: set it to 96 or 112"),
        ("SmpUnetPlusPlus", "small_size", 80, "multiples of 32 pixels: set it to 64 or 96"),
    ],
)
def test_a_size_that_a_network_can_not_take_is_refused_with_those_that_it_can(name, key, size, ways):
    with pytest.raises(InputError, match=rf"{key} = {size} can't be used: .*{ways}"):
        validate(getattr(peers, name).Settings, {key: size}, "approach 'peer'")


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"), [("SmpUnet", 50), ("SmpUnetPlusPlus", 96), ("SmpDeepLabV3Plus", 48)]
)
def test_a_size_that_is_accepted_comes_back_as_it_went_in(name, size, library, monkeypatch):
    monkeypatch.setattr(peers, "ENCODER", "mobilenet_v2")  # smaller, with the same strides
    network = new_approach(name, size=size).build_network().eval()
    assert network(torch.rand(1, 1, size, size)).shape == (1, 1, size, size)


def test_a_key_that_is_the_librarys_is_refused():
    with pytest.raises(InputError, match="unknown key 'encoder_name'"):
        validate(peers.SmpUnet.Settings, {"encoder_name": "resnet18"}, "approach 'peer'")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        # (inputs x outputs + outputs x outputs) x 9 + 4 x outputs in each block of a decoder, and its last
        # convolution; DeepLabV3+ by its parts: ASPP, the three convolutions behind it, and the last one.
        ("SmpUnet", 9_012_928 + 145),
        ("SmpUnetPlusPlus", 25_477_568 + 145),
        ("SmpDeepLabV3Plus", 3_007_488 + 161_808 + 257),
    ],
)
def test_networks_are_the_librarys_defaults_on_a_whole_resnet50(name, head, library):
    approach = new_approach(name)
    with torch.device("meta"):
        network = approach.build_network()
        whole = resnet50(weights=None)
    backbone, rest = approach.group_parameters(network)
    classifier = sum(parameter.numel() for parameter in whole.fc.parameters())
    assert sum(p.numel() for p in backbone) == sum(p.numel() for p in whole.parameters()) - classifier
    assert sum(p.numel() for p in rest) == head
    ids = {id(parameter) for parameter in [*backbone, *rest]}
    assert len(ids) == len(backbone) + len(rest) == len(list(network.parameters()))


@torch.no_grad()
def test_the_library_gets_three_equal_channels_normalised_as_its_weights_want_them(network):
    images = torch.rand(2, 1, 64, 64)
    channels = normalize(images.repeat(1, 3, 1, 1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    logits = network(images)
    assert (logits.shape, logits.dtype) == ((2, 1, 64, 64), torch.float32)
    assert_near(logits, network.model(channels))


@torch.no_grad()
def test_an_image_alone_has_the_logits_that_it_has_in_a_batch(network):
    images = torch.rand(3, 1, 64, 64)
    assert_near(network(images[1:2]), network(images)[1:2])


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
def test_folding_takes_in_every_batch_norm_and_keeps_the_logits(network, count):
    images = torch.rand(count, 1, 64, 64)
    without = fold_norms(network)
    assert len(norms(network)) > len(norms(without)) == 0
    assert_near(without(images), network(images))


def test_two_images_of_the_smallest_size_train_every_parameter(network):
    training = copy.deepcopy(network).train()
    training(torch.rand(2, 1, 32, 32)).square().sum().backward()
    assert [name for name, value in training.named_parameters() if value.grad is None] == []


@torch.no_grad()
def test_one_image_of_the_smallest_size_can_be_trained_on_with_frozen_norms(network):
    """A process has as few where several share a batch."""
    training = copy.deepcopy(network).train()
    for norm in norms(training):
        norm.eval()
    assert training(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)


def test_the_encoder_starts_from_the_file_that_ours_starts_from(library, tmp_path, monkeypatch):
    torch.manual_seed(1)
    given = resnet50(weights=None).state_dict()
    given["layer4.2.bn3.running_var"].uniform_(1, 2)
    save_file(given, tmp_path / "resnet50.safetensors")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(tmp_path))
    approach = new_approach("SmpDeepLabV3Plus", weights="imagenet")
    info = approach.weights()
    assert (info.network, info.kind, info.file) == ("resnet50", "imagenet", "resnet50.safetensors")
    encoder = approach.make_network(seed=0).model.encoder.state_dict()
    assert encoder.keys() == {name for name in given if not name.startswith("fc.")}
    assert [name for name in encoder if not torch.equal(encoder[name], given[name])] == []


def test_weights_of_another_network_are_refused_before_anything_is_trained(library, tmp_path, monkeypatch):
    save_file(resnet18(weights=None).state_dict(), tmp_path / "resnet50.safetensors")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match="doesn't hold the weights of resnet50"):
        new_approach("SmpUnet", weights="imagenet").weights()


def test_random_weights_are_called_so_and_follow_the_seed(library, monkeypatch):
    monkeypatch.setattr(peers, "ENCODER", "mobilenet_v2")
    approach = new_approach("SmpUnetPlusPlus")
    assert approach.weights().kind == "random"
    first, again, other = (approach.make_network(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "model.decoder.blocks.x_0_0.conv1.0.weight"
    assert not torch.equal(first[name], other[name])


def test_a_fit_depends_on_the_librarys_code(library):
    assert peers.LIBRARY in find_libraries(peers.SmpUnet)


@pytest.mark.usefixtures("without_figures", "library")
def test_a_benchmark_trains_stores_and_scores_a_peer(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "ENCODER", "mobilenet_v2")  # smaller, and so are its checkpoints
    out = tmp_path / "out"
    benchmark(spec, out)
    scores = read_table(out, "scores")
    peer = scores[scores["approach"] == "peer"]["dice"]
    assert 2 * len(peer) == len(scores) > 0
    assert peer.between(0, 1).all()
    history = read_table(out, "history")
    assert history[history["approach"] == "peer"]["step"].tolist() == [1, 2]
    settings = peers.SmpDeepLabV3Plus.Settings(size=32)
    stored = peers.SmpDeepLabV3Plus.load(out / "models/peer/f0-s0", settings, Runtime(torch.device("cpu")))
    assert type(stored.network.model).__name__ == "DeepLabV3Plus"
