"""Frozen VGG19 features at several scales: what a pixel's surroundings look like, from near and from far.

VGG19 (Simonyan and Zisserman 2015) up to `relu3_1` is run on an image pyramid (Adelson et al. 1984). A map
of `relu1_2` sees 5 x 5 pixels of its level, one of `relu3_1` 24 x 24; at the level of 32 pixels that is most
of a lung.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.learning.vgg19.features import PixelFeatures, random_state
from lungseg.learning.weights import Kind, find_weights, load_weights
from lungseg.system.errors import InputError

Layer = Literal["relu1_2", "relu2_1", "relu2_2", "relu3_1"]
CHANNELS: dict[str, int] = {"relu1_2": 64, "relu2_1": 128, "relu2_2": 128, "relu3_1": 256}
STRIDES: dict[str, int] = {"relu1_2": 1, "relu2_1": 2, "relu2_2": 2, "relu3_1": 4}
SMALLEST_DEEP = 32  # pixels: below, a pooled map is mostly its zero padding
# torchvision's numbers of the convolutions behind relu1_2, by the layer that each ends in.
CONVOLUTIONS = {"relu2_1": 5, "relu2_2": 7, "relu3_1": 10}
POOLED_BEFORE = ("relu2_1", "relu3_1")


@dataclass(frozen=True)
class Block:
    """One layer's maps at one level of the pyramid.

    Attributes:
        layer: of VGG19, after its ReLU.
        scale: the level's height and width in pixels.
    """

    layer: str
    scale: int

    @property
    def name(self) -> str:
        return f"{self.layer}@{self.scale}"

    @property
    def channels(self) -> int:
        return CHANNELS[self.layer]

    @property
    def side(self) -> int:
        """Height and width of its maps."""
        return self.scale // STRIDES[self.layer]


def blocks_of(layers: tuple[str, ...], scales: tuple[int, ...]) -> tuple[Block, ...]:
    """The blocks that settings ask for, level by level; pooled layers only on large enough levels."""
    return tuple(
        Block(layer, scale)
        for scale in scales
        for layer in CHANNELS
        if layer in layers and (STRIDES[layer] == 1 or scale >= SMALLEST_DEEP)
    )


class Pyramid(nn.Module):
    """Images N x 1 x S x S in [0, 1] -> one map tensor a block, N x C x side x side, at least 0.

    Computes no layer deeper, and no level other, than the blocks need, all in its weights' precision.
    """

    def __init__(self, kind: Kind, blocks: tuple[Block, ...], seed: int = 0) -> None:
        """`kind`: as of `PixelFeatures`.

        Raises:
            InputError: the weights file ends before the deepest layer, or as `find_weights`.
        """
        super().__init__()
        self.blocks = blocks
        self.first = PixelFeatures(kind, seed)
        depth = max((list(CHANNELS).index(block.layer) for block in blocks), default=0)
        self.deeper = [layer for layer in CONVOLUTIONS if list(CHANNELS).index(layer) <= depth]
        for layer, (weight, bias) in _deeper_weights(kind, self.deeper, seed).items():
            self.register_buffer(f"{layer}_weight", weight)
            self.register_buffer(f"{layer}_bias", bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: dict[str, Tensor] = {}
        precision = self.first.second.dtype
        for scale in dict.fromkeys(block.scale for block in self.blocks):
            wanted = [block.layer for block in self.blocks if block.scale == scale]
            for layer, value in self._level(shrink(images, scale).to(precision), wanted).items():
                maps[Block(layer, scale).name] = value
        return [maps[block.name] for block in self.blocks]

    def _level(self, images: Tensor, wanted: list[str]) -> dict[str, Tensor]:
        value = self.first.maps(images)
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


def shrink(images: Tensor, side: int) -> Tensor:
    """N x C x H x W to side x side by area average. Raises ValueError unless `side` divides H and W."""
    if images.shape[-1] % side or images.shape[-2] % side:
        raise ValueError(f"{side} divides not both of {tuple(images.shape[-2:])}")
    factor = images.shape[-1] // side
    return images if factor == 1 else F.avg_pool2d(images, factor)


def _deeper_weights(kind: Kind, layers: list[str], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    shapes = {}
    inputs = CHANNELS["relu1_2"]
    for layer in layers:
        outputs = CHANNELS[layer]
        shapes[f"features.{CONVOLUTIONS[layer]}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{CONVOLUTIONS[layer]}.bias"] = (outputs,)
        inputs = outputs
    file = find_weights("vgg19", kind)
    if file is None:
        state = random_state(seed + 1, shapes)
    else:
        try:
            state = load_weights(file, shapes)
        except InputError as error:
            if "is missing)" not in str(error):
                raise
            raise InputError(f'{error}, or set layers = ["relu1_2"], which needs less of it') from error
    names = {layer: f"features.{CONVOLUTIONS[layer]}" for layer in layers}
    return {layer: (state[f"{name}.weight"], state[f"{name}.bias"]) for layer, name in names.items()}
