"""Makes pairs of masks to check the metrics with: random ones, deformed lungs, and named edge cases.

Everything is drawn from a given generator, so a seed fixes the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

Pair = tuple[np.ndarray, np.ndarray]  # prediction, truth: bool, H x W, of one shape


def draw_random_pairs(count: int, rng: np.random.Generator, largest: int = 48) -> Iterator[Pair]:
    """Yield masks of single pixels or of blobs, each of its own density, of 1 to `largest` pixels a side.

    In every fourth pair most pixels are equal. Masks may be empty or full.
    """
    for number in range(count):
        shape = tuple(rng.integers(1, largest + 1, 2))
        one, other = _draw_mask(shape, rng), _draw_mask(shape, rng)
        yield one, np.where(rng.random(shape) < 0.9, one, other) if number % 4 == 0 else other


def _draw_mask(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.random(shape)
    if rng.random() < 0.5:
        values = gaussian_filter(values, rng.uniform(0.5, 4))
    return values < np.quantile(values, rng.choice([0.002, 0.02, 0.1, 0.3, 0.5, 0.7, 0.95]))


def draw_lung_pairs(
    count: int, rng: np.random.Generator, truth: Callable[[int], np.ndarray]
) -> Iterator[Pair]:
    """Yield lung masks, each with a smoothly deformed copy as the prediction; strengths vary widely.

    Args:
        truth: gives the mask of a number, bool, H x W.
    """
    for number in range(count):
        mask = truth(number)
        yield deform(mask, rng, strength=rng.uniform(0.002, 0.05)), mask


def deform(mask: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Deform a mask by a smooth random displacement, because errors of networks are smooth, too.

    Args:
        mask: bool, H x W.
        strength: standard deviation of the displacement along each axis, as a share of the longer side.

    Returns:
        bool, H x W.
    """
    side = max(mask.shape)
    moved = []
    for axis in np.indices(mask.shape, dtype=np.float64):
        field = gaussian_filter(rng.standard_normal(mask.shape), side / 16)
        moved.append(axis + field * (strength * side / max(field.std(), 1e-12)))
    return map_coordinates(mask.astype(np.float64), moved, order=1) >= 0.5


def make_edge_cases(size: int = 24) -> dict[str, Pair]:
    """Return named pairs, size x size (16 or more), on which implementations often go wrong."""
    empty, full = np.zeros((size, size), bool), np.ones((size, size), bool)

    def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        mask = empty.copy()
        mask[top:bottom, left:right] = True
        return mask

    square, half = box(5, 12, 5, 12), size // 2
    speckled = np.random.default_rng(0).random((size, size)) < 0.5
    return {
        "equal": (square, square),
        "one pixel each": (box(2, 3, 2, 3), box(2, 3, 5, 6)),
        "one pixel in opposite corners": (box(0, 1, 0, 1), box(size - 1, size, size - 1, size)),
        "touching the border": (box(0, half, 0, size), box(0, half, 3, size)),
        "all lung against a square": (full, square),
        "all lung in both": (full, full),
        "a hole": (square & ~box(7, 10, 7, 10), square),
        "nested": (box(8, 9, 8, 9), square),
        "disconnected": (square | box(size - 2, size, size - 2, size), square),
        "disjoint": (box(0, 4, 0, 4), box(size - 5, size, size - 6, size)),
        "one row": (box(3, 4, 0, size), square),
        "speckled": (speckled, square),
        "prediction empty": (empty, square),
        "truth empty": (square, empty),
        "both empty": (empty, empty),
    }
