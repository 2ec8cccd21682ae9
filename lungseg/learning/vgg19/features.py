"""The first two convolutions of a frozen VGG19 (Simonyan and Zisserman 2015): 64 feature maps of an image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.learning.weights import WeightsChoice, find_weights, load_weights
from lungseg.system.runtime import Runtime

CHANNELS = 64
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
# torchvision's names: features.0 is conv1_1, features.2 is conv1_2.
REQUIRED = {
    "features.0.weight": (64, 3, 3, 3),
    "features.0.bias": (64,),
    "features.2.weight": (64, 64, 3, 3),
    "features.2.bias": (64,),
}


class PixelFeatures(nn.Module):
    """VGG19 up to `relu1_2`: grey images N x 1 x H x W in [0, 1] -> maps float32 N x 64 x H x W, at least 0.

    A pixel's 64 numbers depend on the 5 x 5 pixels around it. All three colour channels hold the grey value,
    so ImageNet's normalisation and the sum over channels are part of the first convolution here. It reads two
    planes: the image, and ones that carry the means. Zero padding of the two has the same effect as the
    original's zero padding of the normalised image, so the maps are equal at the border too.
    """

    def __init__(self, weights: WeightsChoice, seed: int = 0) -> None:
        """Load pretrained weights, or draw random ones by the seed.

        Raises InputError as `find_weights` and `load_weights` do.
        """
        super().__init__()
        file = find_weights("vgg19", weights)
        state = make_random_weights(seed) if file is None else load_weights(file, REQUIRED)
        weight = state["features.0.weight"]
        sd = torch.tensor(IMAGENET_SD).view(1, 3, 1, 1)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        grey = (weight / sd).sum(1, keepdim=True)
        inside = (-weight * mean / sd).sum(1, keepdim=True)
        self.register_buffer("first", torch.cat([grey, inside], 1))
        self.register_buffer("first_bias", state["features.0.bias"])
        self.register_buffer("second", state["features.2.weight"])
        self.register_buffer("second_bias", state["features.2.bias"])

    def forward(self, images: Tensor) -> Tensor:
        return self.compute_maps(images).float()

    def compute_maps(self, images: Tensor) -> Tensor:
        """Compute the maps N x 64 x H x W in the precision of the images, or of autocast."""
        planes = torch.cat([images, torch.ones_like(images)], 1)
        first = F.conv2d(planes, self.first, self.first_bias, padding=1).relu_()
        return F.conv2d(first, self.second, self.second_bias, padding=1).relu_()


def make_random_weights(seed: int, shapes: Mapping[str, tuple[int, ...]] = REQUIRED) -> dict[str, Tensor]:
    """Draw He-normal weights (He et al. 2015), and zeros where the name ends in "bias"; float32 by name."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("bias"):
            state[name] = torch.zeros(shape)
        else:
            fan_in = shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return state


def describe_precision(runtime: Runtime) -> list[str]:
    """Say that features on a GPU may be rounded: a sentence for the plan; none on a CPU or in float32."""
    if runtime.device.type == "cpu" or runtime.precision == "float32":
        return []
    return [f"its VGG19 features are computed in {runtime.precision}: fits differ from those in float32"]


@torch.inference_mode()
def extract_features(network: PixelFeatures, batch: Tensor, runtime: Runtime) -> Tensor:
    """Compute maps float32 N x 64 x H x W of a batch N x 1 x H x W on the runtime's device.

    In bfloat16, which most GPUs have and most CPUs haven't, their values are rounded to 8 bits: trees that
    are fitted on them are others than those in float32.
    """
    with runtime.autocast():
        return network(batch)
