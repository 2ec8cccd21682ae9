"""The 64 feature maps of a pixel: VGG19 (Simonyan and Zisserman 2015) up to `relu1_2`, frozen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.learning.weights import find_weights, load_weights
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
    """Grey images N x 1 x H x W in [0, 1] -> 64 maps N x 64 x H x W, float32, at least 0.

    A pixel's 64 numbers see the 5 x 5 pixels around it. The grey value stands in all three colour channels,
    so normalisation and the sum over channels are folded into the first convolution: two planes in, the image
    and a plane of ones that carries the means. The zeros around both are then what the zeros around the
    normalised image are in the original, so the maps are equal at the border too.
    """

    def __init__(self, kind: str, seed: int = 0) -> None:
        """`kind`: "imagenet", "random" (He initialisation by `seed`) or "auto". Raises as `find_weights`."""
        super().__init__()
        file = find_weights("vgg19", kind)
        state = random_state(seed) if file is None else load_weights(file, REQUIRED)
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
        return self.maps(images).float()

    def maps(self, images: Tensor) -> Tensor:
        """The same in the precision that it was computed in."""
        planes = torch.cat([images, torch.ones_like(images)], 1)
        first = F.conv2d(planes, self.first, self.first_bias, padding=1).relu_()
        return F.conv2d(first, self.second, self.second_bias, padding=1).relu_()


def random_state(seed: int, shapes: Mapping[str, tuple[int, ...]] = REQUIRED) -> dict[str, Tensor]:
    """He-normal weights and zero biases (He et al. 2015) of named convolutions; the first two by default."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("bias"):
            state[name] = torch.zeros(shape)
        else:
            fan_in = shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return state


@torch.inference_mode()
def extract(network: PixelFeatures, batch: Tensor, runtime: Runtime) -> Tensor:
    """Maps N x 64 x H x W, float32, of a batch N x 1 x H x W on the runtime's device."""
    with runtime.autocast():
        return network(batch)
