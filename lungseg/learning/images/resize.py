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
from torch import Tensor, nn
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
    if image.shape == (height, width):
        return np.clip(image.astype(np.float32, order="C", copy=False), 0.0, 1.0)
    rows = compute_axis_weights(image.shape[0], height)
    columns = compute_axis_weights(image.shape[1], width)
    resized = (columns @ (rows @ image.astype(np.float32, copy=False)).T).T
    return np.ascontiguousarray(np.clip(resized, 0.0, 1.0))


def to_batch(images: Sequence[np.ndarray], size: int, device: torch.device | str = "cpu") -> Tensor:
    """Resize images float32 H x W in [0, 1] to one batch float32 N x 1 x size x size in [0, 1] on a device.

    Area average along an axis that shrinks, else bilinear. The aspect ratio isn't kept: an image fills its
    square. For a CUDA device images are resized there, elsewhere on the host: equal within 1e-6.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _to_batch_on_device(images, size, device)
    batch = np.empty((len(images), 1, size, size), dtype=np.float32)
    for index, image in enumerate(images):
        batch[index, 0] = _resize(image, size, size)
    return torch.from_numpy(batch).to(device)


def _to_batch_on_device(images: Sequence[np.ndarray], size: int, device: torch.device) -> Tensor:
    batch = torch.empty((len(images), 1, size, size), device=device)
    for index, image in enumerate(images):
        there = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(device)
        if image.shape != (size, size):
            rows, columns = (_copy_axis_weights(old, size, device) for old in image.shape)
            there = rows @ there @ columns.T
        batch[index, 0] = there.clamp(0.0, 1.0)
    return batch


@lru_cache(maxsize=32)  # up to 6 MB each for a film of 3000 px
def _copy_axis_weights(old: int, new: int, device: torch.device) -> Tensor:
    return torch.from_numpy(compute_axis_weights(old, new).toarray()).to(device)


class BilinearUpsampling(nn.Module):
    """Bilinear enlarging of maps N x C x h x w in a network, as `torch.nn.functional.interpolate` does it.

    On a CUDA device it is two products with small matrices, whose gradient is two products again: torch's own
    gradient isn't deterministic there, and what torch puts in its place sorts all pixels. A CPU is faster
    with torch's own, and so is compiled or exported code.
    """

    def __init__(self, aligned_corners: bool) -> None:
        super().__init__()
        self.aligned_corners = aligned_corners
        self._weights: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def forward(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        if maps.device.type != "cuda" or torch.compiler.is_compiling():
            return functional.interpolate(maps, size, mode="bilinear", align_corners=self.aligned_corners)
        return self.multiply(maps, size)

    def multiply(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge maps by products in float32 at least; the result has the maps' type and layout."""
        count, channels, height, width = maps.shape
        rows, columns = (
            self._find_weights(*sides, maps) for sides in zip(maps.shape[-2:], size, strict=True)
        )
        with torch.autocast(maps.device.type, enabled=False):
            wide = maps.to(rows.dtype)
            if channels == 1 or not maps.is_contiguous(memory_format=torch.channels_last):
                return (rows @ (wide @ columns.T)).to(maps.dtype)
            lines = wide.permute(0, 2, 3, 1).reshape(count, height, width * channels)
            enlarged = columns @ (rows @ lines).view(count, size[0], width, channels)
            return enlarged.permute(0, 3, 1, 2).to(maps.dtype)

    def _find_weights(self, old: int, new: int, maps: Tensor) -> Tensor:
        """Return the matrix new x old of an axis on the maps' device."""
        dtype = torch.promote_types(maps.dtype, torch.float32)
        key = (old, new, maps.device, dtype)
        if key not in self._weights:
            with torch.inference_mode(False):  # else no later training could use it
                self._weights[key] = _weigh_neighbours(old, new, self.aligned_corners, maps.device).to(dtype)
        return self._weights[key]


def _weigh_neighbours(old: int, new: int, aligned_corners: bool, device: torch.device) -> Tensor:
    """Compute the bilinear weights float64 new x old: 1 less the distance, where that is below 1."""
    places = torch.arange(new, dtype=torch.float64, device=device)
    if aligned_corners:
        places = places * ((old - 1) / max(new - 1, 1))
    else:
        places = ((places + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
    pixels = torch.arange(old, dtype=torch.float64, device=device)
    return (1 - (places[:, None] - pixels).abs()).clamp_min(0)


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
        for index, array in zip(indices, resize_on_device(group, size).cpu().numpy(), strict=True):
            resized[index] = array
    return resized


def resize_on_device(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps N x 1 x h x w to one size (H, W), float32 N x H x W in [0, 1], where they are."""
    maps = maps.float()
    if size[0] < maps.shape[-2] or size[1] < maps.shape[-1]:
        maps = functional.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
    elif maps.shape[-2:] != size:
        # What `interpolate` calls on a CPU. On a GPU it takes many slow operations in place of this one where
        # algorithms are to be deterministic, for the sake of a gradient that nothing here needs.
        maps = torch.ops.aten.upsample_bilinear2d(maps, size, False)
    return maps[:, 0].clamp(0.0, 1.0)
