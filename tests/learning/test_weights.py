import hashlib
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights

from lungseg.learning import weights
from lungseg.learning.vgg19 import features
from lungseg.learning.vgg19.pyramid import Pyramid, make_blocks
from lungseg.learning.weights import (
    PACKAGED,
    PUBLISHED,
    WeightsFile,
    describe_weights,
    find_weights,
    load_weights,
)
from lungseg.system.errors import InputError

REQUIRED = {"features.0.weight": (2, 3), "features.0.bias": (2,)}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without weights, variable or network; returns its folders of weights and of torch's cache."""
    folder, cache = tmp_path / "weights", tmp_path / "hub" / "checkpoints"
    folder.mkdir()
    cache.mkdir(parents=True)

    def offline(url, *args, **kwargs):
        raise URLError("no network")

    monkeypatch.delenv("LUNGSEG_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return folder, cache


def tensors():
    return {"features.0.weight": torch.arange(6.0).view(2, 3), "features.0.bias": torch.ones(2)}


@pytest.mark.parametrize("network", ["vgg19", "resnet50"])
def test_the_folder_comes_first_and_safetensors_before_pth(machine, monkeypatch, network):
    folder, cache = machine
    names = [f"{network}.safetensors", f"{network}.pth", f"{network}-0676ba61.pth"]
    for name in names:
        (folder / name).write_bytes(b"x")
    in_cache = cache / "resnet50-0676ba61.pth"
    in_cache.write_bytes(b"x")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(folder))
    for name in names:
        assert find_weights(network, "auto").path == folder / name
        (folder / name).unlink()
    assert find_weights(network, "auto").path == {"resnet50": in_cache, **PACKAGED}[network]


def test_vgg19s_first_convolutions_come_with_the_package():
    file = find_weights("vgg19", "auto")
    assert find_weights("vgg19", "imagenet") == file
    assert file.sha256 in (file.path.parent / "NOTICE").read_text()
    # The first layer of the published network has biases up to 1.85 and weights up to 37.2.
    state = load_weights(file, features.REQUIRED)
    assert state["features.0.bias"].abs().max() == pytest.approx(1.8496, abs=1e-3)
    assert state["features.0.weight"].abs().max() == pytest.approx(37.18, abs=0.02)
    assert Pyramid("imagenet", make_blocks(("relu3_1",), (32,))).deeper == ["relu2_1", "relu2_2", "relu3_1"]


def test_weights_of_a_relative_with_a_longer_name_are_not_taken(machine, monkeypatch):
    folder, _ = machine
    for place in machine:
        (place / "vgg19_bn-c79401a0.pth").write_bytes(b"x")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(folder))
    assert find_weights("vgg19", "auto").path == PACKAGED["vgg19"]


def test_auto_never_downloads_and_random_never_looks(monkeypatch):
    monkeypatch.setattr(weights, "_download", lambda network: pytest.fail("downloaded"))
    assert find_weights("resnet50", "auto") is None
    monkeypatch.setenv("LUNGSEG_WEIGHTS", "/no/such/folder")
    assert find_weights("resnet50", "random") is None


@pytest.mark.parametrize("choice", ["imagenet", "auto"])
def test_a_variable_that_names_no_folder_is_an_error(choice, monkeypatch):
    monkeypatch.setenv("LUNGSEG_WEIGHTS", "/no/such/folder")
    with pytest.raises(InputError, match="LUNGSEG_WEIGHTS names /no/such/folder, which isn't a folder"):
        find_weights("vgg19", choice)


def test_imagenet_without_a_network_says_the_ways_out():
    with pytest.raises(InputError, match="resnet50") as error:
        find_weights("resnet50", "imagenet")
    for way in ("LUNGSEG_WEIGHTS", "resnet50.safetensors", "network connection", 'weights = "random"'):
        assert way in str(error.value)


def test_imagenet_downloads_into_the_cache_and_checks_the_hash(machine, monkeypatch):
    calls = []

    def download(url, destination, hash_prefix, progress):
        calls.append((url, hash_prefix, progress))
        torch.save(tensors(), destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    found = find_weights("resnet50", "imagenet")
    assert found.path == machine[1] / "resnet50-0676ba61.pth"
    assert find_weights("resnet50", "imagenet") == found
    assert calls == [("https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61", True)]
    assert load_weights(found, REQUIRED)["features.0.weight"][1, 2] == 5


@pytest.mark.parametrize("name", ["vgg19.safetensors", "vgg19.pth"])
def test_half_precision_is_read_to_float32_and_the_rest_left_out(name, tmp_path):
    path = tmp_path / name
    stored = {key: value.half() for key, value in tensors().items()} | {"classifier.0.bias": torch.ones(9)}
    save_file(stored, path) if path.suffix == ".safetensors" else torch.save(stored, path)
    loaded = load_weights(WeightsFile("vgg19", path), REQUIRED)
    assert set(loaded) == set(REQUIRED)
    for key, value in tensors().items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], value)


@pytest.mark.parametrize("name", ["vgg19.safetensors", "vgg19.pth"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_a_truncated_file_is_named(name, kept, tmp_path):
    path = tmp_path / name
    save_file(tensors(), path) if path.suffix == ".safetensors" else torch.save(tensors(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=rf"{name} can't be read as weights"):
        load_weights(WeightsFile("vgg19", path), REQUIRED)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"vgg19\.safetensors can't be read"):
        load_weights(WeightsFile("vgg19", tmp_path / "vgg19.safetensors"), REQUIRED)


def test_a_file_that_could_run_code_is_refused(tmp_path):
    path = tmp_path / "vgg19.pth"
    torch.save({"features.0.weight": print}, path)
    with pytest.raises(InputError, match=r"vgg19\.pth can't be read as weights"):
        load_weights(WeightsFile("vgg19", path), REQUIRED)


def test_a_file_that_holds_no_dictionary_is_refused(tmp_path):
    path = tmp_path / "vgg19.pth"
    torch.save(torch.ones(3), path)
    with pytest.raises(InputError, match="holds no named weights"):
        load_weights(WeightsFile("vgg19", path), REQUIRED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.0.bias": torch.ones(5)}, r"features\.0\.bias has shape \(5,\), not \(2,\)"),
        ({"features.0.bias": None}, r"features\.0\.bias is missing"),
    ],
)
def test_weights_of_another_network_are_refused(change, message, tmp_path):
    path = tmp_path / "vgg19.safetensors"
    save_file({key: value for key, value in (tensors() | change).items() if value is not None}, path)
    with pytest.raises(InputError, match=rf"vgg19\.safetensors .*{message}"):
        load_weights(WeightsFile("vgg19", path), REQUIRED)


def test_the_description_names_the_file_and_its_hash_but_no_folder(tmp_path):
    path = tmp_path / "vgg19.safetensors"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        info = describe_weights("vgg19", WeightsFile("vgg19", path))
        assert (info.kind, info.file) == ("imagenet", "vgg19.safetensors")
        assert info.sha256 == hashlib.sha256(content).hexdigest()
    assert describe_weights("vgg19", None).kind == "random"


def test_files_in_torchs_cache_have_torchvisions_names():
    published = [ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2]
    assert tuple(weights.url.rsplit("/", 1)[-1] for weights in published) == PUBLISHED["resnet50"]
