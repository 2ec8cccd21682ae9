"""Principal components of VGG19's channels, fitted without any mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.learning.images.resize import shrink_maps
from lungseg.learning.vgg19.pyramid import Block


class Projection(nn.Module):
    """The first principal components of each block's standardised channels, as a 1 x 1 convolution per block.

    It is fitted without any mask, so it knows no image's label. With `components` of 0 the channels stay as
    they are.
    """

    def __init__(self, blocks: tuple[Block, ...], components: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.components = components
        for index, block in enumerate(blocks if components else ()):
            kept = min(components, block.channels)
            self.register_buffer(f"weight_{index}", torch.zeros(kept, block.channels))
            self.register_buffer(f"bias_{index}", torch.zeros(kept))

    @property
    def names(self) -> list[str]:
        """Return the planes' names: "relu1_2@256:3" is the fourth component (or channel) of that block."""
        return [f"{block.name}:{index}" for block in self.blocks for index in range(self._count(block))]

    def _count(self, block: Block) -> int:
        return min(self.components, block.channels) if self.components else block.channels

    def fit(self, samples: list[Tensor]) -> None:
        """Fit the components to rows of pixels float32 R x C of each block, R > 1."""
        for index, rows in enumerate(samples if self.components else ()):
            mean, sd = rows.mean(0), rows.std(0).clamp_min(1e-3)
            covariance = torch.cov(((rows - mean) / sd).T.double())
            _, vectors = torch.linalg.eigh(covariance)
            leading = vectors.flip(1)[:, : self._count(self.blocks[index])]
            # An eigenvector's sign is arbitrary. It is fixed here: the same rows give the same planes.
            largest = leading.abs().argmax(0)
            leading = leading * leading[largest, torch.arange(leading.shape[1])].sign()
            weight = (leading / sd[:, None]).T.float()
            getattr(self, f"weight_{index}").copy_(weight)
            getattr(self, f"bias_{index}").copy_(-(weight @ mean))

    def forward(self, maps: list[Tensor], largest: int) -> list[Tensor]:
        """Project each block's maps to N x K x s x s, in their precision.

        Maps of more than `largest` pixels a side are averaged first, which is cheaper and gives the same.
        """
        return [
            self._project_block(index, shrink_maps(value, min(largest, value.shape[-1])))
            for index, value in enumerate(maps)
        ]

    def _project_block(self, index: int, value: Tensor) -> Tensor:
        if not self.components:
            return value
        weight = getattr(self, f"weight_{index}").to(value.dtype)
        return F.conv2d(value, weight[:, :, None, None], getattr(self, f"bias_{index}").to(value.dtype))
