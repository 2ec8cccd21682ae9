"""Find pictures that differ from the rest: inverted, turned, or of something else. Needs no mask.

Each picture is compared with all others upright, inverted and turned. Its distance is that to its nearest
neighbours, so that a second hospital or another way of cropping is no alarm. Two descriptions are compared:
grey values at 16 x 16, and where edges run (Dalal and Triggs 2005: histograms of oriented gradients).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

from lungseg.data.audit.alignment import shrink

SIDE = 64  # pixels
FEWEST = 20  # pictures; among fewer none is called unlike the rest

# Robust z-scores. Measured on 951 X-rays and 1,000 phantoms.
_UNLIKE, _UNLIKE_GROWTH = 3.2, 0.5  # from the first among 60 on; the second is added for ten times as many
_BETTER = 0.35  # by which an inverted or turned picture must come nearer to the rest

_NEIGHBOURS = 4
_GREY_SIDE = 16
_CELLS, _DIRECTIONS = 8, 8  # of the histograms of gradients
_EDGE_BLUR = 1.5  # pixels
_BANDS = ((1, 2), (2, 4), (4, 8), (8, 16), (16, 32))  # waves a picture
_BLOCK = 256  # pictures compared at a time: bounds the memory


@dataclass(frozen=True)
class Unlike:
    """Indices of pictures that look wrong; no picture is in two of them."""

    inverted: list[int] = field(default_factory=list)
    turned: dict[int, int] = field(default_factory=dict)  # index -> degrees clockwise that it was turned by
    foreign: list[int] = field(default_factory=list)


def reduce_picture(image: np.ndarray) -> np.ndarray:
    """Return what `find_unlike` needs of an image (H x W, in [0, 1]): SIDE x SIDE float32."""
    return shrink(np.ascontiguousarray(image, np.float32), SIDE)


def find_unlike(pictures: Sequence[np.ndarray]) -> Unlike:
    """Find pictures of `reduce_picture` that differ from the others; none among fewer than FEWEST.

    A mirrored picture is not found: hearts differ too little from each other's mirror image. If most are
    inverted, the few that are not are found instead.
    """
    if len(pictures) < FEWEST:
        return Unlike()
    upright = np.stack(pictures)
    found, limit = Unlike(), _UNLIKE + _UNLIKE_GROWTH * max(0.0, np.log10(len(upright) / 60))
    for index, (agreed, distance) in enumerate(zip(*_compare(upright), strict=True)):
        best = int(distance.argmin())
        if best == 0 or distance[0] - distance[best] < _BETTER or distance[best] >= limit:
            continue
        if best == 1 and agreed[0] < 0:
            found.inverted.append(index)
            upright[index] = 1 - upright[index]
        elif best > 1 and agreed[best] > agreed[0]:
            found.turned[index] = 90 * (best - 1)
            upright[index] = np.rot90(upright[index], best - 1)
    known = {*found.inverted, *found.turned}
    distances = _compare(upright)[1][:, 0]  # anew: what was wrong widened the spread
    found.foreign.extend(i for i in np.flatnonzero(distances >= limit).tolist() if i not in known)
    return found


def _compare(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The correlation with the median picture, and the robust z-score of the distance, each n x 5.

    Columns: as it is, inverted, and undone if it was turned clockwise by 90, 180 and 270 degrees. The
    median and the spread of a z-score are those of the pictures as they are.
    """
    changed = [pictures, 1 - pictures, *(np.rot90(pictures, turns, (1, 2)) for turns in (1, 2, 3))]
    grey = [_describe_grey(one) for one in changed]
    edges = [_describe_edges(one) for one in changed]
    middle = np.median(grey[0], axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-6)
    agreement = np.stack([one @ middle for one in grey], axis=1)
    parts = [_score(_measure_distances(described)) for described in (grey, edges)]
    detail = _score(_measure_detail(pictures)[:, None])  # is the same however a picture is turned
    return agreement, _rescale(np.mean([*parts, np.broadcast_to(detail, parts[0].shape)], axis=0))


def _describe_grey(pictures: np.ndarray) -> np.ndarray:
    """Grey values (n x 256), whose products are correlations."""
    step = SIDE // _GREY_SIDE
    rows = pictures.reshape(len(pictures), _GREY_SIDE, step, _GREY_SIDE, step).mean((2, 4))
    rows = rows.reshape(len(pictures), -1)
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _describe_edges(pictures: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (n x 512) of length 1; the root of a gradient counts."""
    down, right = np.gradient(gaussian_filter(pictures, (0, _EDGE_BLUR, _EDGE_BLUR)), axis=(1, 2))
    strength = np.sqrt(np.hypot(down, right))
    direction = np.arctan2(down, right) % (2 * np.pi) / (2 * np.pi) * _DIRECTIONS
    step, cells = SIDE // _CELLS, []
    for centre in range(_DIRECTIONS):
        away = np.abs((direction - centre + _DIRECTIONS / 2) % _DIRECTIONS - _DIRECTIONS / 2)
        share = strength * np.maximum(0, 1 - away)
        cells.append(share.reshape(len(pictures), _CELLS, step, _CELLS, step).sum((2, 4)))
    return _unit(np.stack(cells, axis=-1).reshape(len(pictures), -1))


def _measure_distances(described: Sequence[np.ndarray]) -> np.ndarray:
    """The mean squared distance to the nearest other pictures as they are; a column each description."""
    plain = described[0]
    columns = []
    for changed in described:
        column = np.empty(len(plain))
        for start in range(0, len(plain), _BLOCK):
            block = changed[start : start + _BLOCK]
            apart = np.maximum(2 - 2 * block @ plain.T, 1e-4)
            apart[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
            nearest = np.partition(apart, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
            column[start : start + len(block)] = nearest.mean(axis=1)
        columns.append(column)
    return np.stack(columns, axis=1)


def _measure_detail(pictures: np.ndarray) -> np.ndarray:
    """How far from usual the falloff of a picture's power spectrum is: coarse shading against fine detail."""
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    centred = (pictures - pictures.mean((1, 2), keepdims=True)) * window
    power = np.abs(np.fft.fft2(centred)) ** 2
    waves = np.fft.fftfreq(SIDE) * SIDE
    radius = np.hypot(waves[:, None], waves)
    bands = [power[:, (radius >= low) & (radius < high)].mean(axis=1) for low, high in _BANDS]
    levels = np.log(np.stack(bands, axis=1) + 1e-8)
    return np.linalg.norm(_rescale(levels[:, 1:] - levels[:, :1], by_column=True), axis=1) + 0.3


def _score(distances: np.ndarray) -> np.ndarray:
    """Robust z-scores of the logarithm of distances, by those in the first column."""
    return _rescale(np.log(distances))


def _rescale(values: np.ndarray, by_column: bool = False) -> np.ndarray:
    """Robust z-scores (n x k): by the median and the median absolute deviation, of column 0 or of each."""
    known = values if by_column else values[:, :1]
    middle = np.median(known, axis=0)
    return (values - middle) / (1.4826 * np.median(np.abs(known - middle), axis=0) + 1e-6)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
