"""Find pictures that differ from the rest: inverted, turned, or of something else. Needs no mask.

A picture without its flat borders is described by where its edges run (Dalal and Triggs 2005: histograms of
oriented gradients). Undoing an inversion or a turn only reorders this description. The order that agrees best
with the mean of all pictures is upright. What then resembles no other picture is unlike the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

from lungseg.data.audit.alignment import shrink

FEWEST = 12  # pictures; among fewer none is called unlike the rest

# Squared distances of descriptions of length 1. They were chosen on half of the pictures of
# `benchmarks/studies/data/planted_pictures.py`, which counts what is named in the other half.
_UNLIKE = 0.6  # a correlation of 0.7 with other pictures
_UNLIKE_SHARE = 2.0  # of the median: in a set of great variety, a picture has to be further away
_ALIKE = 0.85  # of the limit above; only what comes this near to others was inverted or turned
_NEIGHBOUR = 4  # the distance to this one counts, so that four foreign pictures of one kind are named, too

_SIDE = 64  # pixels that are described
_EDGE_BLUR = 1.0  # pixels
_DIRECTIONS = 8
_GRID = 16  # a side, of histograms that are kept
_CELLS = 8  # a side, of histograms that are compared
_WINDOW = 14  # of _GRID: a picture may show an eighth less than another one does
_FLAT = 0.1  # of white; a row or column of a border differs by less between its 10th and 90th percentile
_BLOCK = 256  # pictures compared at a time: bounds the memory


@dataclass(frozen=True)
class Unlike:
    """Indices of pictures that look wrong; no picture is in two of them."""

    inverted: list[int] = field(default_factory=list)
    turned: dict[int, int] = field(default_factory=dict)  # index -> degrees clockwise that it was turned by
    foreign: list[int] = field(default_factory=list)


def describe_picture(image: np.ndarray) -> np.ndarray:
    """Return what `find_unlike` needs of an image (H x W, in [0, 1]): float32, directions x 16 x 16."""
    inner = _trim(_trim(shrink(np.ascontiguousarray(image, np.float32), 2 * _SIDE)).T).T
    blurred = gaussian_filter(shrink(np.ascontiguousarray(inner), _SIDE), _EDGE_BLUR)
    down, right = np.gradient(blurred)
    direction = np.arctan2(down, right) / (2 * np.pi) * _DIRECTIONS
    centres = np.arange(_DIRECTIONS)[:, None, None]
    away = np.abs((direction - centres + _DIRECTIONS / 2) % _DIRECTIONS - _DIRECTIONS / 2)
    strength = np.sqrt(np.hypot(down, right)) * np.maximum(0, 1 - away)  # the root: faint edges count, too
    step = _SIDE // _GRID
    return strength.reshape(_DIRECTIONS, _GRID, step, _GRID, step).sum((2, 4)).astype(np.float32)


def find_unlike(descriptions: Sequence[np.ndarray]) -> Unlike:
    """Find pictures that differ from the others, by `describe_picture`; none among fewer than FEWEST.

    A mirrored picture is not found: hearts differ too little from each other's mirror image. If most are
    inverted, the few that are not are found instead. More than four foreign pictures that resemble each
    other may be missed.
    """
    if len(descriptions) < FEWEST:
        return Unlike()
    plain = np.stack(descriptions)
    ways = _find_upright(plain)
    distances = _measure_distances(_undo_each(plain, ways))
    limit = max(_UNLIKE, _UNLIKE_SHARE * float(np.median(distances)))
    ways[distances > _ALIKE * limit] = 0  # something foreign has no way up
    foreign = (ways == 0) & (_measure_distances(_undo_each(plain, ways)) > limit)
    return Unlike(
        inverted=np.flatnonzero(ways == 1).tolist(),
        turned={index: 90 * (int(ways[index]) - 1) for index in np.flatnonzero(ways > 1).tolist()},
        foreign=np.flatnonzero(foreign).tolist(),
    )


def _trim(picture: np.ndarray) -> np.ndarray:
    """Cut flat rows off at the top and the bottom, such as a black border, unless they are over half."""
    low, high = np.percentile(picture, (10, 90), axis=1)
    rows = np.flatnonzero(high - low > _FLAT)
    if not len(rows) or rows[-1] + 1 - rows[0] < len(picture) / 2:
        return picture
    return picture[rows[0] : rows[-1] + 1]


def _undo(descriptions: np.ndarray, way: int) -> np.ndarray:
    """Undo what was done to pictures. Way 1: inverted; 2, 3, 4: turned clockwise by 90, 180, 270 degrees."""
    if way == 0:
        return descriptions
    if way == 1:
        return np.roll(descriptions, _DIRECTIONS // 2, axis=1)
    turns = way - 1
    return np.roll(np.rot90(descriptions, turns, (2, 3)), -turns * _DIRECTIONS // 4, axis=1)


def _undo_each(descriptions: np.ndarray, ways: np.ndarray) -> np.ndarray:
    upright = descriptions.copy()
    for way in range(1, 5):
        upright[ways == way] = _undo(descriptions[ways == way], way)
    return upright


def _find_upright(descriptions: np.ndarray) -> np.ndarray:
    """Which `_undo` brings each picture nearest to the mean of all; the mean is taken anew once."""
    changed = np.stack([_compress(_undo(descriptions, way)) for way in range(5)])
    best = np.zeros(len(descriptions), int)
    for _ in range(2):
        mean = changed[best, np.arange(len(best))].mean(axis=0)
        best = (changed @ mean).argmax(axis=0)
    return best


def _compress(descriptions: np.ndarray, top: int = 0, left: int = 0, length: int = _GRID) -> np.ndarray:
    """A square window of each description in 8 x 8 cells, as a row of length 1: n x 512."""
    rows, columns = _resampler(top, length), _resampler(left, length)
    cells = (rows @ descriptions @ columns.T).reshape(len(descriptions), -1)
    return cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6)


def _resampler(start: int, length: int) -> np.ndarray:
    """_CELLS x _GRID weights: a triangle filter as wide as two cells."""
    step = length / _CELLS
    centres = start + (np.arange(_CELLS) + 0.5) * step
    weights = np.maximum(0, 1 - np.abs(np.arange(_GRID) + 0.5 - centres[:, None]) / step)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _measure_distances(descriptions: np.ndarray) -> np.ndarray:
    """The squared distance of each picture to its fourth nearest, one of the two whole or a window."""
    starts = (0, (_GRID - _WINDOW) // 2, _GRID - _WINDOW)
    whole = _compress(descriptions)
    windows = [_compress(descriptions, top, left, _WINDOW) for top in starts for left in starts]
    distances = np.empty(len(whole))
    for start in range(0, len(whole), _BLOCK):
        block = slice(start, start + _BLOCK)
        alike = whole[block] @ whole.T
        for window in windows:
            np.maximum(alike, window[block] @ whole.T, out=alike)
            np.maximum(alike, whole[block] @ window.T, out=alike)
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -np.inf
        distances[block] = 2 - 2 * np.partition(alike, -_NEIGHBOUR, axis=1)[:, -_NEIGHBOUR]
    return distances
