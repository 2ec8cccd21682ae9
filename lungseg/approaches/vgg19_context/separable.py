"""Enlarging and smoothing as products with small matrices, one a direction: M X M^T.

A processor is far faster at these than at sliding windows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from lungseg.learning.images.resize import axis_weights
from lungseg.learning.vgg19.pyramid import shrink


def resample(planes: Tensor, side: int) -> Tensor:
    """Float32 N x C x s x s to side x side: area average downwards, bilinear upwards, as torch's.

    Raises ValueError if it has to shrink them to a side that doesn't divide theirs.
    """
    if planes.shape[-1] >= side:
        return shrink(planes, side)
    return separable(planes.contiguous(), enlarging(planes.shape[-1], side, planes.device))


def separable(planes: Tensor, matrix: Tensor) -> Tensor:
    """M X M^T of each of the planes N x C x s x s; `matrix` S x s, or C' x S x s for C = 1, one a plane."""
    return matrix @ (planes @ matrix.mT)


@lru_cache(maxsize=64)
def enlarging(side: int, wanted: int, device: torch.device) -> Tensor:
    """Float32 wanted x side: each row holds the weights that a new place gives to the old ones."""
    return torch.from_numpy(axis_weights(side, wanted).toarray()).to(device)


def smoothing(kernel: Tensor, side: int, device: torch.device) -> Tensor:
    """Float32 side x side: convolution with a kernel of odd length, the border repeated beyond itself."""
    radius = len(kernel) // 2
    matrix = torch.zeros(side, side, dtype=torch.float64)
    places = torch.arange(side)
    for offset, weight in zip(range(-radius, radius + 1), kernel.double(), strict=True):
        matrix.index_put_(
            (places, (places + offset).clamp(0, side - 1)), weight.expand(side), accumulate=True
        )
    return matrix.float().to(device)


def gaussian(sigma: float) -> Tensor:
    """A Gaussian kernel; sigma in pixels, cut at three sigma, float64, of sum 1."""
    radius = max(1, int(3 * sigma))
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def box(half: int) -> Tensor:
    """A kernel of 2 half + 1 equal weights, float64, of sum 1."""
    return torch.full((2 * half + 1,), 1 / (2 * half + 1), dtype=torch.float64)
