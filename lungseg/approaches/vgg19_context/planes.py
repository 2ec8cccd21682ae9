"""What is known of each pixel before any prediction: features, grey values and where it lies.

All of it as planes N x P x G x G, so that a row of a table is one pixel of the stack.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungseg.approaches.vgg19_context.separable import box, separable, smoothing
from lungseg.learning.vgg19.pyramid import Block, shrink

LOW, HIGH = 0.02, 0.98  # quantiles of an image's grey values that become 0 and 1
QUANTILE_STRIDE = 4  # every fourth pixel along each axis gives the same quantiles within their noise
BODY = 0.1  # normalised grey value above which a pixel counts as body
LOCAL_WINDOWS = (1 / 14, 1 / 4)  # sides of the windows of the local mean, as shares of the image's side


def normalise(images: Tensor) -> Tensor:
    """Grey values N x 1 x H x W stretched image by image: its 2 % quantile becomes 0, its 98 % quantile 1."""
    sampled = images[..., ::QUANTILE_STRIDE, ::QUANTILE_STRIDE].flatten(1).float()
    levels = torch.tensor([LOW, HIGH], device=images.device)
    low, high = torch.quantile(sampled, levels, dim=1).view(2, -1, 1, 1, 1)
    return ((images - low) / (high - low).clamp_min(1e-3)).clamp(0, 1)


class Projection(nn.Module):
    """Each block's channels -> its first principal components, on standardised channels.

    One convolution of 1 x 1 a block. It is fitted without any mask, so no image's label is in it.
    With `components` of 0 the channels stay as they are.
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
        """One name a plane: "relu1_2@256:3" is the fourth component (or channel) of that block."""
        return [f"{block.name}:{index}" for block in self.blocks for index in range(self._kept(block))]

    def _kept(self, block: Block) -> int:
        return min(self.components, block.channels) if self.components else block.channels

    def fit(self, samples: list[Tensor]) -> None:
        """`samples`: one float32 R x C a block, rows of pixels; at least two rows each."""
        for index, rows in enumerate(samples if self.components else ()):
            mean, sd = rows.mean(0), rows.std(0).clamp_min(1e-3)
            covariance = torch.cov(((rows - mean) / sd).T.double())
            _, vectors = torch.linalg.eigh(covariance)
            leading = vectors.flip(1)[:, : self._kept(self.blocks[index])]
            # The sign of an eigenvector is free: fixed, so that the same rows give the same planes.
            largest = leading.abs().argmax(0)
            leading = leading * leading[largest, torch.arange(leading.shape[1])].sign()
            weight = (leading / sd[:, None]).T.float()
            getattr(self, f"weight_{index}").copy_(weight)
            getattr(self, f"bias_{index}").copy_(-(weight @ mean))

    def forward(self, maps: list[Tensor], largest: int) -> list[Tensor]:
        """Maps of `Pyramid` -> planes N x K x s x s in their precision, a tensor a block.

        s is the block's own side, or `largest` if that is smaller: to average first is the same, and cheaper.
        """
        return [
            self._project(index, shrink(value, min(largest, value.shape[-1])))
            for index, value in enumerate(maps)
        ]

    def _project(self, index: int, value: Tensor) -> Tensor:
        if not self.components:
            return value
        weight = getattr(self, f"weight_{index}").to(value.dtype)
        return F.conv2d(value, weight[:, :, None, None], getattr(self, f"bias_{index}").to(value.dtype))


GREY_NAMES = ["grey", *(f"grey - mean of {window:.2f}" for window in LOCAL_WINDOWS)]


def grey_planes(images: Tensor) -> Tensor:
    """Normalised images N x 1 x G x G -> grey value, and its difference from local means: N x 3 x G x G."""
    local = separable(images, _local_means(images.shape[-1], images.device))
    return torch.cat([images, images - local], 1)


@lru_cache(maxsize=8)
def _local_means(grid: int, device: torch.device) -> Tensor:
    """Float32 windows x grid x grid: `smoothing` of each window."""
    halves = [max(1, round(window * grid / 2)) for window in LOCAL_WINDOWS]
    return torch.stack([smoothing(box(half), grid, device) for half in halves])


COORDINATE_NAMES = ["y", "x", "body above", "body left", "body left in row"]


def coordinate_planes(images: Tensor) -> Tensor:
    """Where a pixel lies, in the image and in the body: N x 5 x G x G of normalised images N x 1 x G x G.

    y and x in [-1, 1]; then the share of the body's pixels that lie above its row and left of its column,
    and the share of its own row's. Letterboxed, cut or shifted pictures so share one frame. Where a row
    holds no body the last is one half.
    """
    count, _, height, width = images.shape
    y = torch.linspace(-1, 1, height, device=images.device).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, -1)
    body = (images > BODY).int()
    above = _share_before(body.sum(3, keepdim=True), 2)
    left = _share_before(body.sum(2, keepdim=True), 3)
    planes = [plane.expand(count, 1, height, width) for plane in (y, x, above, left)]
    return torch.cat([*planes, _share_before(body, 3)], 1)


def _share_before(amounts: Tensor, axis: int) -> Tensor:
    """Share of the sum along an axis that lies before each place, its own counted by half; 1/2 of nothing.

    `amounts` are integers, whose running sums are the same on every device.
    """
    total = amounts.sum(axis, keepdim=True)
    before = amounts.cumsum(axis) - amounts / 2
    return torch.where(total > 0, before / total.clamp_min(1), torch.full_like(before, 0.5))
