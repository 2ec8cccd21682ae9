"""Resizing and smoothing of planes as products with small matrices, one per direction: M X M^T.

A processor computes these much faster than sliding windows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from lungseg.learning.images.resize import compute_axis_weights, shrink_maps


def resample(planes: Tensor, side: int) -> Tensor:
    """Resize planes to side x side pixels: by area average downwards, bilinearly upwards.

    Args:
        planes: float32 N x C x s x s.
        side: of the result, in pixels.

    Returns:
        float32 N x C x side x side.

    Raises:
        ValueError: a smaller side that doesn't divide the present one.
    """
    if planes.shape[-1] >= side:
        return shrink_maps(planes, side)
    return apply_separable(planes.contiguous(), make_enlarging_matrix(planes.shape[-1], side, planes.device))


def apply_separable(planes: Tensor, matrix: Tensor) -> Tensor:
    """Compute M X M^T of each plane X of N x C x s x s.

    Args:
        planes: N x C x s x s.
        matrix: S x s; or, for C = 1, C' x S x s, which makes C' planes of each.

    Returns:
        N x C x S x S, or N x C' x S x S.
    """
    return matrix @ (planes @ matrix.mT)


@lru_cache(maxsize=64)
def make_enlarging_matrix(side: int, wanted: int, device: torch.device) -> Tensor:
    """Make the matrix float32 wanted x side of bilinear interpolation along one axis."""
    return torch.from_numpy(compute_axis_weights(side, wanted).toarray()).to(device)


def make_smoothing_matrix(kernel: Tensor, side: int, device: torch.device) -> Tensor:
    """Make the matrix float32 side x side of a convolution along one axis, with the border repeated.

    Args:
        kernel: of odd length.
        side: pixels of the axis.
        device: of the matrix.
    """
    radius = len(kernel) // 2
    matrix = torch.zeros(side, side, dtype=torch.float64)
    places = torch.arange(side)
    for offset, weight in zip(range(-radius, radius + 1), kernel.double(), strict=True):
        matrix.index_put_(
            (places, (places + offset).clamp(0, side - 1)), weight.expand(side), accumulate=True
        )
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
