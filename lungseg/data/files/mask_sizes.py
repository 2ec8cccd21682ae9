"""Masks of another size than their image: what `resize_masks` does, and when to set it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lungseg.data.files.images import SizeMismatch, read_image_size
from lungseg.data.files.raster import read_size

_ASPECT_TOLERANCE = 0.01 + 1e-9  # of width over height: what rounding to whole pixels may change


def require_sizes(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Raise one SizeMismatch for several masks of another size, if `resize_masks` could fit them all.

    Only the headers of the (image, mask) files are read. A single one, and one that could not be fitted, are
    left to `read_mask`, which refuses it by name. Raises InputError as `read_size`.
    """
    factors: dict[Path, float] = {}
    for image, mask in pairs:
        size, own = read_image_size(image), read_size(mask)
        if size != own:
            if not _have_one_aspect(size, own):
                return
            factors[mask] = own[1] / size[1]
    if len(factors) > 1:
        found = list(dict.fromkeys(f"{factor:.3g}" for factor in sorted(factors.values())))
        which = f"all {found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"
        raise SizeMismatch(
            f"{len(factors)} masks are of another size, {which} of their image's (such as "
            f"{next(iter(factors))}): set resize_masks = true if they are only scaled"
        )


def resize_mask(mask: np.ndarray, shape: tuple[int, int], path: Path, image: Path) -> np.ndarray:
    """Resize a mask (H x W, any type) to the (height, width) of its image by the nearest pixel.

    Raises SizeMismatch if the aspect ratios differ by more than 1 %; `path` and `image` are for the message.
    """
    height, width = mask.shape
    if not _have_one_aspect(mask.shape, shape):
        raise SizeMismatch(
            f"{path} is {width} x {height} pixels and its image {image} is {shape[1]} x {shape[0]}, of "
            "another aspect ratio, so resize_masks can't fit it: give a mask of the whole image"
        )
    rows, columns = (
        (2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(shape, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def _have_one_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two (height, width) have the same aspect ratio within the tolerance."""
    ratio = first[1] * second[0] / (first[0] * second[1])
    return max(ratio, 1 / ratio) - 1 <= _ASPECT_TOLERANCE
