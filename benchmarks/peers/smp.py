"""Networks of segmentation_models_pytorch as approaches: what a user would pick instead of lungseg's own.

Each is the library's class as its constructor's defaults make it, on a ResNet50 encoder. All that isn't the
network is lungseg's: images, augmentation, loss, schedule, and the file that ImageNet weights come from.
A spec that is run from the repository's root names them as `use = "benchmarks.peers.smp:SmpUnet"`.
"""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import torch
from pydantic import field_validator
from torch import Tensor, nn

from lungseg.approaches.deeplabv3plus.network import IMAGENET_MEAN, IMAGENET_STD
from lungseg.approaches.network import NetworkApproach
from lungseg.learning.networks.convolutions import use_matrix_products
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.weights import WeightsInfo, describe_weights, find_weights, load_weights
from lungseg.system.errors import InputError, shorten_paths

LIBRARY = "segmentation_models_pytorch"
ENCODER = "resnet50"


def load_library() -> ModuleType:
    """The library. Raises InputError if it isn't installed or can't be imported."""
    try:
        import segmentation_models_pytorch as library

        return library
    except Exception as error:  # whatever a library of somebody else raises while it is imported
        # Tables print the reason, and folders of this machine mean nothing there.
        reason = shorten_paths(f"{type(error).__name__}: {error}".splitlines()[0])
        raise InputError(
            f"{LIBRARY} can't be imported ({reason}): install it, with "
            'pip install -e ".[peers]" in the root of the repository'
        ) from error


class SmpSettings(TrainingSettings):
    """The keys that every trained network has, and no others: the network is the library's default.

    Attributes:
        MULTIPLE: `size` and `small_size` have to be multiples of it.
    """

    MULTIPLE: ClassVar[int] = 1

    @field_validator("size", "small_size")
    @classmethod
    def _can_be_taken(cls, size: int) -> int:
        below = size - size % cls.MULTIPLE
        if size != below:
            raise ValueError(
                f"this network takes multiples of {cls.MULTIPLE} pixels: "
                f"set it to {below} or {below + cls.MULTIPLE}"
            )
        return size


class SmpUnetPlusPlusSettings(SmpSettings):
    """Of U-Net++, which joins maps that have to be halves of one another, five times."""

    MULTIPLE: ClassVar[int] = 32


class SmpDeepLabV3PlusSettings(SmpSettings):
    """Of DeepLabV3+, whose encoder ends at a sixteenth of the size."""

    MULTIPLE: ClassVar[int] = 16


class OnGrey(nn.Module):
    """A network of the library that takes grey images, as lungseg's own networks do.

    Attributes:
        model: the library's network, with its parts `encoder`, `decoder` and `segmentation_head`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        use_matrix_products(model)  # computed as fast as lungseg's own
        self.model = model
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 N x 1 x s x s, of grey images N x 1 x s x s in [0, 1]; a positive one means lung.

        The library gets three equal channels, normalised by ImageNet's mean and standard deviation: what the
        encoder's weights were trained on, and what its README has a user do.
        """
        return self.model((images - self.mean) / self.std).float()


class _SmpNetwork(NetworkApproach):
    """What the three share.

    Attributes:
        MODEL: the library's class.
    """

    Settings = SmpSettings
    MODEL: ClassVar[str]

    def skip(self) -> str | None:
        try:
            load_library()
        except InputError as error:
            return str(error)
        return None

    def weights(self) -> WeightsInfo:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:  # read now: a damaged file must not end a benchmark in its last hour
            load_weights(file, _shapes(self.build_network()))
        return describe_weights("resnet50", file)

    def build_network(self) -> OnGrey:
        build = getattr(load_library(), self.MODEL)
        # Its own weights would be downloaded from elsewhere: `start` brings those that ours starts from.
        return OnGrey(build(ENCODER, encoder_weights=None, in_channels=3, classes=1))

    def load_pretrained(self, network: nn.Module) -> None:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:
            encoder = network.model.encoder
            encoder.load_state_dict({**encoder.state_dict(), **load_weights(file, _shapes(network))})

    def group_parameters(self, network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        rest = [value for name, value in network.named_parameters() if not name.startswith("model.encoder.")]
        return list(network.model.encoder.parameters()), rest


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the weights of the encoder, whose names are torchvision's; counters of batches aren't weights."""
    state = network.model.encoder.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if "num_batches" not in name}


class SmpUnet(_SmpNetwork):
    """U-Net (Ronneberger et al. 2015) of the library."""

    MODEL = "Unet"


class SmpUnetPlusPlus(_SmpNetwork):
    """U-Net++ (Zhou et al. 2018) of the library."""

    Settings = SmpUnetPlusPlusSettings
    MODEL = "UnetPlusPlus"


class SmpDeepLabV3Plus(_SmpNetwork):
    """DeepLabV3+ (Chen et al. 2018) of the library, at output stride 16."""

    Settings = SmpDeepLabV3PlusSettings
    MODEL = "DeepLabV3Plus"
