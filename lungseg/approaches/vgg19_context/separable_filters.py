"""Resizing and smoothing of planes as products with small matrices, one per direction: M X M^T.

A processor computes these much faster than sliding windows.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lungseg.learning.images.resize import compute_axis_weights, shrink_maps


def resample(planes: Tensor, side: int) -> Tensor:
    """Resize planes float32 N x C x s x s to side x side: by area average downwards, bilinearly upwards.

    Raises ValueError if a smaller side doesn't divide the present one.
    """
    if planes.shape[-1] >= side:
        return shrink_maps(planes, side)
    return apply_separable(planes.contiguous(), make_enlarging_matrix(planes.shape[-1], side, planes.device))


def apply_separable(planes: Tensor, matrix: Tensor) -> Tensor:
    """Compute M X M^T of each plane X of N x C x s x s; M is S x s, or, for C = 1, C' x S x s."""
    return matrix @ (planes @ matrix.mT)


@cache  # for good: a recorded CUDA graph goes on reading it
def make_places(side: int, device: torch.device) -> Tensor:
    """Make the places float32 `side` of pixels along one axis, from -1 to 1."""
    return torch.linspace(-1, 1, side, device=device)


@cache
def make_enlarging_matrix(side: int, wanted: int, device: torch.device) -> Tensor:
    """Make the matrix float32 wanted x side of bilinear interpolation along one axis."""
    return torch.from_numpy(compute_axis_weights(side, wanted).toarray()).to(device)


def make_smoothing_matrix(kernel: Tensor, side: int, device: torch.device) -> Tensor:
    """Make the matrix float32 side x side of a convolution (of odd length), with the border repeated."""
    radius = len(kernel) // 2
    matrix = torch.zeros(side, side, dtype=torch.float64)
    places = torch.arange(side)
    for offset, weight in zip(range(-radius, radius + 1), kernel.double(), strict=True):
        read = (places + offset).clamp(0, side - 1)
        matrix.index_put_((places, read), weight.expand(side), accumulate=True)
    return matrix.float().to(device)


def make_gaussian_kernel(sigma: float) -> Tensor:
    """Make a Gaussian kernel float64 of sum 1, cut at three sigma; sigma in pixels."""
    radius = max(1, int(3 * sigma))
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def make_box_kernel(half: int) -> Tensor:
    """Make a kernel of 2 half + 1 equal weights, float64 of sum 1."""
    return torch.full((2 * half + 1,), 1 / (2 * half + 1), dtype=torch.float64)
