"""Pretrained ImageNet weights: found in a folder, in the package or in torch's cache, or downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lungseg.system.errors import InputError
from lungseg.system.files import expand_user

Network = Literal["vgg19", "resnet50"]
# What `weights` in a spec may be. "auto": ImageNet's if they are on this machine, else random.
WeightsChoice = Literal["imagenet", "random", "auto"]

# torchvision's files. The first is downloaded: V1, trained by the plain recipe as Keras' weights are. V2 is
# used if it is already here and V1 isn't. VGG19's first convolutions come with this package, so that approach
# A has the same features everywhere; a cached VGG19 would have other values.
PUBLISHED = {"vgg19": (), "resnet50": ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth")}
PACKAGED = {"vgg19": Path(__file__).parent / "vgg19" / "first-convolutions.safetensors"}

# Of the file that a fitted model needs: its sha256, and the folder of the model, which may hold it.
_REQUIRED: ContextVar[tuple[str, Path] | None] = ContextVar("required weights", default=None)


@dataclass(frozen=True)
class WeightsFile:
    """A file of ImageNet weights with torchvision's key names, .safetensors or .pth."""

    network: str
    path: Path

    @property
    def sha256(self) -> str:
        """Return the hash of the file's bytes; they are read once for each version of the file."""
        stat = self.path.stat()
        return _sha256(self.path, stat.st_mtime_ns, stat.st_size)


@dataclass(frozen=True)
class WeightsInfo:
    """Which pretrained weights an approach starts from, for run.json and under every table."""

    network: str  # "vgg19" or "resnet50"
    kind: str  # "imagenet" or "random"
    file: str = ""  # its name without its folder, which is private
    sha256: str = ""  # of the file's bytes


def describe_weights(network: Network, file: WeightsFile | None) -> WeightsInfo:
    """Describe what `find_weights` returned; None stands for random weights."""
    if file is None:
        return WeightsInfo(network, "random")
    return WeightsInfo(network, "imagenet", file.path.name, file.sha256)


@lru_cache(maxsize=32)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def require_weights(sha256: str, folder: Path) -> Iterator[None]:
    """Have only a file with this hash found during the `with` block, wherever it lies, first in a folder."""
    token = _REQUIRED.set((sha256, folder))
    try:
        yield
    finally:
        _REQUIRED.reset(token)


def find_weights(network: Network, choice: WeightsChoice) -> WeightsFile | None:
    """Find the file of pretrained weights that `weights = choice` in a spec asks for; None for random ones.

    "imagenet" and "auto" look into the folder that LUNGSEG_WEIGHTS names (NETWORK.safetensors, then
    NETWORK.pth or NETWORK-*.pth). Then they take what comes with the package (VGG19), or look into torch's
    cache (ResNet50). If there is nothing, "imagenet" downloads torchvision's file into that cache, and "auto"
    takes random weights. "random" doesn't look. Raises InputError if LUNGSEG_WEIGHTS names no folder, or
    "imagenet" weights can be neither found nor fetched.
    """
    if choice == "random":
        return None
    required = _REQUIRED.get()
    if required is not None:
        return _find_required(network, *required)
    path = next((path for path in _list_places(network) if path.is_file()), None)
    if path is None and choice == "imagenet":
        path = _download(network)
    return WeightsFile(network, path) if path else None


def _find_required(network: str, sha256: str, folder: Path) -> WeightsFile:
    for path in (folder / f"{network}.safetensors", *_list_places(network)):
        if path.is_file() and (file := WeightsFile(network, path)).sha256 == sha256:
            return file
    raise InputError(
        f"the model in {folder} was fitted on {network} weights of sha256 {sha256[:12]}, which aren't on "
        "this machine: set LUNGSEG_WEIGHTS as it was for its benchmark"
    )


def _list_places(network: str) -> list[Path]:
    names = PUBLISHED[network]
    known = [PACKAGED[network]] if network in PACKAGED else [_cache_folder() / name for name in names]
    named = os.environ.get("LUNGSEG_WEIGHTS")
    if not named:
        return known
    folder = expand_user(named, "LUNGSEG_WEIGHTS")
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise InputError(
            f"LUNGSEG_WEIGHTS names {named[:200]}, which isn't a folder: correct it, or unset it"
        )
    own = [folder / name for name in (f"{network}.safetensors", f"{network}.pth", *names)]
    # Not NETWORK*.pth: that would take vgg19_bn for vgg19.
    return [*own, *sorted(folder.glob(f"{network}-*.pth")), *known]


def _cache_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(network: str) -> Path:
    # Not before: importing torchvision takes two seconds, in each process of the timings.
    from torchvision.models import ResNet50_Weights

    url = ResNet50_Weights.IMAGENET1K_V1.url
    path = _cache_folder() / PUBLISHED[network][0]
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
    """Read the tensors of the required names (torchvision's) and shapes from a file, which may hold others.

    They are float32 on the CPU; float16 and bfloat16 are widened. Raises InputError if the file is missing,
    damaged, or of another network (a name is missing, a shape differs).
    """
    safetensors = file.path.suffix == ".safetensors"
    found = (_read_safetensors if safetensors else _read_pth)(file.path, set(required))
    for name, shape in required.items():
        if name not in found:
            raise _wrong(file, f"{name} is missing")
        if tuple(found[name].shape) != tuple(shape):
            raise _wrong(file, f"{name} has shape {tuple(found[name].shape)}, not {tuple(shape)}")
    return {name: found[name].float() for name in required}


def read_tensors(file: WeightsFile, prefix: str) -> dict[str, Tensor]:
    """Read all tensors of a .pth file whose names begin so. Raises InputError if it can't be read."""
    found = _read_pth(file.path, None)
    return {name: value for name, value in found.items() if name.startswith(prefix)}


def _read_safetensors(path: Path, names: set[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names.intersection(file.keys())}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_pth(path: Path, names: set[str] | None) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # Depending on where a file is cut or changed, unpickling raises almost any exception.
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no named weights: replace it with torchvision's file")
    kept = content if names is None else {name: content[name] for name in names & content.keys()}
    return {name: value for name, value in kept.items() if isinstance(value, Tensor)}


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
