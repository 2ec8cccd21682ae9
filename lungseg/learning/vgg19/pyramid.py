"""Frozen VGG19 features at several scales, for what is near a pixel and what is far away.

VGG19 (Simonyan and Zisserman 2015) up to `relu3_1` is run on an image pyramid (Adelson et al. 1984). The
receptive field of `relu1_2` is 5 x 5 pixels of its level, that of `relu3_1` is 24 x 24. At the level of 32
pixels that is most of a lung.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.learning.images.resize import shrink_maps
from lungseg.learning.vgg19.features import PixelFeatures, make_random_weights
from lungseg.learning.weights import WeightsChoice, find_weights, load_weights
from lungseg.system.errors import InputError

Layer = Literal["relu1_2", "relu2_1", "relu2_2", "relu3_1"]
CHANNELS: dict[str, int] = {"relu1_2": 64, "relu2_1": 128, "relu2_2": 128, "relu3_1": 256}
STRIDES: dict[str, int] = {"relu1_2": 1, "relu2_1": 2, "relu2_2": 2, "relu3_1": 4}
SMALLEST_DEEP = 32  # pixels of a level: on smaller ones a pooled map is mostly zero padding
# torchvision's numbers of the convolutions after relu1_2, by the layer that each ends in.
CONVOLUTIONS = {"relu2_1": 5, "relu2_2": 7, "relu3_1": 10}
POOLED_BEFORE = ("relu2_1", "relu3_1")


@dataclass(frozen=True)
class Block:
    """The maps of one layer at one level of the pyramid."""

    layer: str  # of VGG19, after its ReLU
    scale: int  # the level's height and width in pixels

    @property
    def name(self) -> str:
        """Return the name in columns and files, such as "relu1_2@256"."""
        return f"{self.layer}@{self.scale}"

    @property
    def channels(self) -> int:
        """Return the number of maps."""
        return CHANNELS[self.layer]

    @property
    def side(self) -> int:
        """Return height and width of the maps, in pixels."""
        return self.scale // STRIDES[self.layer]


def make_blocks(layers: tuple[str, ...], scales: tuple[int, ...]) -> tuple[Block, ...]:
    """List the blocks of layers at scales, level by level; levels below 32 pixels have no pooled layers."""
    return tuple(
        Block(layer, scale)
        for scale in scales
        for layer in CHANNELS
        if layer in layers and (STRIDES[layer] == 1 or scale >= SMALLEST_DEEP)
    )


class Pyramid(nn.Module):
    """VGG19 on an image pyramid: images N x 1 x S x S in [0, 1] -> a tensor N x C x side x side per block.

    The maps are at least 0. Only the layers and levels that the blocks need are computed, in the precision of
    the weights.
    """

    def __init__(self, weights: WeightsChoice, blocks: tuple[Block, ...], seed: int = 0) -> None:
        """Load pretrained weights, or draw random ones by the seed.

        Raises InputError if the weights file ends before the deepest layer, or as `find_weights` does.
        """
        super().__init__()
        self.blocks = blocks
        self.first = PixelFeatures(weights, seed)
        depth = max((list(CHANNELS).index(block.layer) for block in blocks), default=0)
        self.deeper = [layer for layer in CONVOLUTIONS if list(CHANNELS).index(layer) <= depth]
        for layer, (weight, bias) in _load_deeper_weights(weights, self.deeper, seed).items():
            self.register_buffer(f"{layer}_weight", weight)
            self.register_buffer(f"{layer}_bias", bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: dict[str, Tensor] = {}
        precision = self.first.second.dtype
        for scale in dict.fromkeys(block.scale for block in self.blocks):
            wanted = [block.layer for block in self.blocks if block.scale == scale]
            for layer, value in self._run_level(shrink_maps(images, scale).to(precision), wanted).items():
                maps[Block(layer, scale).name] = value
        return [maps[block.name] for block in self.blocks]

    def _run_level(self, images: Tensor, wanted: list[str]) -> dict[str, Tensor]:
        value = self.first.compute_maps(images)
        found = {"relu1_2": value}
        for layer in self.deeper:
            if list(CHANNELS).index(layer) > max(list(CHANNELS).index(name) for name in wanted):
                break
            if layer in POOLED_BEFORE:
                value = F.max_pool2d(value, 2)
            weight, bias = getattr(self, f"{layer}_weight"), getattr(self, f"{layer}_bias")
            value = F.conv2d(value, weight, bias, padding=1).relu_()
            found[layer] = value
        return {layer: found[layer] for layer in wanted}


def _load_deeper_weights(
    weights: WeightsChoice, layers: list[str], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    shapes = {}
    inputs = CHANNELS["relu1_2"]
    for layer in layers:
        outputs = CHANNELS[layer]
        shapes[f"features.{CONVOLUTIONS[layer]}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{CONVOLUTIONS[layer]}.bias"] = (outputs,)
        inputs = outputs
    file = find_weights("vgg19", weights)
    if file is None:
        state = make_random_weights(seed + 1, shapes)
    else:
        try:
            state = load_weights(file, shapes)
        except InputError as error:
            if "is missing)" not in str(error):
                raise
            raise InputError(f'{error}, or set layers = ["relu1_2"], which needs less of it') from error
    names = {layer: f"features.{CONVOLUTIONS[layer]}" for layer in layers}
    return {layer: (state[f"{name}.weight"], state[f"{name}.bias"]) for layer, name in names.items()}
