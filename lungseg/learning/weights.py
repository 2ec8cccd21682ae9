"""Where pretrained weights come from: a folder, torch's cache, or torchvision's download."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torchvision.models import ResNet50_Weights, VGG19_Weights

from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically

Network = Literal["vgg19", "resnet50"]
Kind = Literal["imagenet", "random", "auto"]

# The first of each is what is downloaded. For ResNet50 it is V1, of the plain recipe that Keras' weights have
# too; V2 is taken if it is already here and V1 isn't.
URLS: dict[str, list[str]] = {
    "vgg19": [VGG19_Weights.IMAGENET1K_V1.url],
    "resnet50": [ResNet50_Weights.IMAGENET1K_V1.url, ResNet50_Weights.IMAGENET1K_V2.url],
}


@dataclass(frozen=True)
class WeightsFile:
    """A file of ImageNet weights with torchvision's key names, .safetensors or .pth."""

    network: str
    path: Path

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes; read once for each version of the file."""
        stat = self.path.stat()
        return _sha256(self.path, stat.st_mtime_ns, stat.st_size)

    def info(self) -> WeightsInfo:
        """What run.json and the tables say: the file's name, as a path is nobody's business."""
        return WeightsInfo(self.network, "imagenet", self.path.name, self.sha256)


def weights_info(network: Network, file: WeightsFile | None) -> WeightsInfo:
    """The description of what `find_weights` returned; None stands for random weights."""
    return file.info() if file else WeightsInfo(network, "random")


@lru_cache(maxsize=32)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def find_weights(network: Network, kind: Kind) -> WeightsFile | None:
    """The file of pretrained weights that `weights = kind` in a spec asks for.

    "imagenet" and "auto" look into the folder that LUNGSEG_WEIGHTS names (NETWORK.safetensors, then
    NETWORK.pth or NETWORK-*.pth), then into torch's cache. If there is nothing, "imagenet" downloads
    torchvision's file into that cache and "auto" settles for random weights. "random" doesn't look.

    Returns:
        The file, or None for random weights.

    Raises:
        InputError: LUNGSEG_WEIGHTS names no folder, or "imagenet" weights can be neither found nor fetched.
    """
    if kind == "random":
        return None
    path = _in_folder(network) or _in_cache(network)
    if path is None and kind == "imagenet":
        path = _download(network)
    return WeightsFile(network, path) if path else None


def _in_folder(network: str) -> Path | None:
    name = os.environ.get("LUNGSEG_WEIGHTS")
    if not name:
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InputError(f"LUNGSEG_WEIGHTS names {name}, which isn't a folder: correct it, or unset it")
    published = [folder / _file_name(url) for url in URLS[network]]
    # Not NETWORK*.pth: that would take vgg19_bn for vgg19.
    others = sorted(folder.glob(f"{network}-*.pth"))
    return _first([folder / f"{network}.safetensors", folder / f"{network}.pth", *published, *others])


def _in_cache(network: str) -> Path | None:
    return _first([_cache() / _file_name(url) for url in URLS[network]])


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _file_name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _download(network: str) -> Path:
    url = URLS[network][0]
    path = _cache() / _file_name(url)
    digest = path.stem.rsplit("-", 1)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Fetches to a temporary file, compares the hash, then renames: the cache never holds half a file.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"no ImageNet weights of {network} on this machine, and {url} can't be downloaded ({error}): set "
            f"LUNGSEG_WEIGHTS to a folder with {network}.safetensors or {path.name}, run this once with "
            'a network connection, or set weights = "random" in the spec'
        ) from error
    return path


def load_weights(file: WeightsFile, required: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Reads the tensors that a network needs from a file.

    Args:
        file: what `find_weights` returned.
        required: shape of each tensor, by torchvision's name. The file may hold others: they aren't returned.

    Returns:
        The required tensors, float32 on the CPU; float16 and bfloat16 are widened.

    Raises:
        InputError: the file is missing, damaged, or of another network (a name is missing, a shape differs).
    """
    safetensors = file.path.suffix == ".safetensors"
    found = (_read_safetensors if safetensors else _read_pth)(file.path, set(required))
    for name, shape in required.items():
        if name not in found:
            raise _wrong(file, f"{name} is missing")
        if tuple(found[name].shape) != tuple(shape):
            raise _wrong(file, f"{name} has shape {tuple(found[name].shape)}, not {tuple(shape)}")
    return {name: found[name].float() for name in required}


def _read_safetensors(path: Path, names: set[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names.intersection(file.keys())}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_pth(path: Path, names: set[str]) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # Depending on where a file is cut or changed, unpickling raises almost any exception.
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no named weights: replace it with torchvision's file")
    return {name: value for name, value in content.items() if name in names and isinstance(value, Tensor)}


def _wrong(file: WeightsFile, fact: str) -> InputError:
    return InputError(
        f"{file.path} doesn't hold the weights of {file.network} ({fact}): "
        f"replace it with torchvision's {file.network}"
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} can't be read as weights ({type(error).__name__}): it is missing, cut short or damaged, "
        "so replace it, or delete it if it is in torch's cache and it will be downloaded again"
    )


@dataclass(frozen=True)
class WeightsInfo:
    """Which pretrained weights an approach uses: goes into run.json and under every table."""

    network: str
    kind: str  # "imagenet" or "random"
    file: str = ""
    sha256: str = ""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a .safetensors file. Raises InputError if the disk is full or the place can't be written."""
    host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(host))
