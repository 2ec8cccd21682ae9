"""Resize images and masks to the working size, and maps back to the images' own sizes.

Shrinking is an exact area average: each new pixel is the mean of the part of the image that it covers, also
where the ratio is no integer. So nothing aliases, and a shrunk mask's value is the share of lung in the cell.
(`F.interpolate` has no such mode: with "area" cells overlap at ratios that are no integers, and `antialias`
weights pixels by a triangle that reaches into the neighbouring cells.) Enlarging is bilinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional


@lru_cache(maxsize=256)
def compute_axis_weights(old: int, new: int) -> sparse.csr_array:
    """Compute the matrix float32 new x old that resizes an axis of `old` pixels to `new`; its rows sum to 1.

    Area average where the axis shrinks, else bilinear with pixel centres at half integers
    (`align_corners=False`) and the border repeated.
    """
    return _compute_area_weights(old, new) if new < old else _compute_bilinear_weights(old, new)


def _compute_area_weights(old: int, new: int) -> sparse.csr_array:
    # In units of 1 / new of an old pixel all edges are integers, so the overlaps are exact.
    edges = np.union1d(np.arange(new + 1) * old, np.arange(old + 1) * new)
    pieces = np.diff(edges) / old
    cell, pixel = edges[:-1] // old, edges[:-1] // new
    return sparse.csr_array((pieces.astype(np.float32), (cell, pixel)), shape=(new, old))


def _compute_bilinear_weights(old: int, new: int) -> sparse.csr_array:
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    left = np.floor(centres).astype(int)
    right = np.minimum(left + 1, old - 1)
    share = (centres - left).astype(np.float32)
    cell = np.arange(new)
    values = np.concatenate([1 - share, share])
    places = (np.concatenate([cell, cell]), np.concatenate([left, right]))
    return sparse.csr_array((values, places), shape=(new, old))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = compute_axis_weights(image.shape[0], height)
    columns = compute_axis_weights(image.shape[1], width)
    resized = (columns @ (rows @ image.astype(np.float32, copy=False)).T).T
    return np.ascontiguousarray(np.clip(resized, 0.0, 1.0))


def to_batch(images: Sequence[np.ndarray], size: int, device: torch.device | str = "cpu") -> Tensor:
    """Resize images float32 H x W in [0, 1] to one batch float32 N x 1 x size x size in [0, 1] on a device.

    Area average along an axis that shrinks, else bilinear. The aspect ratio isn't kept: an image fills its
    square. Resizing happens on the host, so only small images are copied to the device.
    """
    batch = np.empty((len(images), 1, size, size), dtype=np.float32)
    for index, image in enumerate(images):
        batch[index, 0] = _resize(image, size, size)
    return torch.from_numpy(batch).to(device)


def shrink_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Compute the share of lung, float32, in each cell of a size x size grid over a mask bool H x W.

    It is interpolated bilinearly along an axis that is shorter than `size`.
    """
    return _resize(mask, size, size)


def shrink_maps(maps: Tensor, side: int) -> Tensor:
    """Shrink maps N x C x H x W to side x side by area average; ValueError if `side` divides not both."""
    if maps.shape[-1] % side or maps.shape[-2] % side:
        raise ValueError(f"{side} divides not both of {tuple(maps.shape[-2:])}")
    factor = maps.shape[-1] // side
    return maps if factor == 1 else functional.avg_pool2d(maps, factor)


def resize_maps(maps: Tensor, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Resize maps N x 1 x h x w to each image's (H, W) on their device, and copy them to the host.

    The arrays are float32 in [0, 1], in the order of `sizes`. Bilinear with `align_corners=False`,
    antialiased along an axis that shrinks. Raises ValueError if there aren't as many sizes as maps.
    """
    if maps.shape[0] != len(sizes):
        raise ValueError(f"{maps.shape[0]} maps, but {len(sizes)} sizes")
    places: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        places.setdefault((int(size[0]), int(size[1])), []).append(index)
    resized: list[np.ndarray] = [np.empty(0, np.float32)] * len(sizes)
    for size, indices in places.items():
        group = maps if len(places) == 1 else maps[indices]
        for index, array in zip(indices, _resize_on_device(group, size), strict=True):
            resized[index] = array
    return resized


def _resize_on_device(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    maps = maps.float()
    if maps.shape[-2:] != size:
        shrinks = size[0] < maps.shape[-2] or size[1] < maps.shape[-1]
        maps = functional.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=shrinks)
    return maps[:, 0].clamp(0.0, 1.0).cpu().numpy()
