"""Contrast-limited adaptive histogram equalisation (CLAHE) of batches, on their device.

Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994. The image is cut into
tiles. Each tile's histogram is clipped and equalised. A pixel's new value is interpolated between the values
that the four nearest tiles give it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 256


def apply_clahe(images: Tensor, tiles: int = 8, limit: float = 2.0) -> Tensor:
    """Raise the local contrast of images float32 N x 1 x H x W in [0, 1], rounded to 256 grey levels.

    There are `tiles` along each side, at most as many as it has pixels. At the right and below, the image is
    extended by its mirror image to a multiple of the tiles. A level of a tile counts at most `limit` times
    its even share of the tile's pixels. The excess is distributed evenly over all levels. An image's result
    doesn't depend on the rest of the batch.
    """
    height, width = images.shape[-2:]
    rows, columns = min(tiles, height), min(tiles, width)
    # The padding is shorter than the side, as "reflect" demands, since there are no more tiles than pixels.
    filled = functional.pad(images, (0, -width % columns, 0, -height % rows), mode="reflect")
    levels = (filled * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1)
    return _interpolate(levels, _equalise_tiles(levels, rows, columns, limit))[..., :height, :width]


def _equalise_tiles(levels: Tensor, rows: int, columns: int, limit: float) -> Tensor:
    """Compute each tile's new value of each level: float32 N x rows x columns x LEVELS in [0, 1]."""
    count, _, height, width = levels.shape
    tiles = levels.reshape(count, rows, height // rows, columns, width // columns).transpose(2, 3)
    tiles = tiles.reshape(count * rows * columns, -1)
    pixels = tiles.shape[1]
    first = torch.arange(len(tiles), device=levels.device)[:, None] * LEVELS
    histogram = torch.bincount((tiles + first).flatten(), minlength=len(tiles) * LEVELS)
    # In units of 1 / LEVELS of a pixel all terms are integers: sums are the same on every device.
    counts = histogram.view(len(tiles), LEVELS) * LEVELS
    clipped = counts.clamp_max(round(limit * pixels))
    above = (counts - clipped).sum(1, keepdim=True)
    shares = torch.arange(1, LEVELS + 1, device=levels.device)
    sums = clipped.cumsum(1) * LEVELS + above * shares
    return (sums / (pixels * LEVELS**2)).view(count, rows, columns, LEVELS)


def _interpolate(levels: Tensor, tables: Tensor) -> Tensor:
    count, _, height, width = levels.shape
    rows, row_shares = _find_nearest_tiles(height, tables.shape[1], levels.device)
    columns, column_shares = _find_nearest_tiles(width, tables.shape[2], levels.device)
    image = torch.arange(count, device=levels.device).view(-1, 1, 1)
    found = torch.zeros(count, height, width, device=levels.device)
    for row, row_share in zip(rows, row_shares, strict=True):
        for column, column_share in zip(columns, column_shares, strict=True):
            values = tables[image, row[:, None], column, levels[:, 0]]
            found += row_share[:, None] * column_share * values
    return found[:, None].clamp(0.0, 1.0)  # the four shares add up to 1 but for rounding


def _find_nearest_tiles(size: int, tiles: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Find the two tiles whose centres enclose each place, and their shares; at the rim both are the same."""
    places = (torch.arange(size, device=device) + 0.5) * tiles / size - 0.5
    below = places.floor()
    share = places - below
    first, second = (each.long().clamp(0, tiles - 1) for each in (below, below + 1))
    return [first, second], [1 - share, share]
