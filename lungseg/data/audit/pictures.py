"""Near-duplicates: which pictures are copies of each other, resized, cropped, mirrored or shown otherwise.

Unrelated chest X-rays look alike: at 32 pixels they correlate up to 0.97. So coarse shading is taken away and
local contrast evened out before anything is compared. Every picture is then compared at 48 x 48 pixels with
windows of every other (parts of it, shifted, mirrored) by matrix products, and the few pairs that look alike
are laid over each other exactly at 128 x 128 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lungseg.data.audit.alignment import (
    FINE_DETAIL,
    ROUGH_DETAIL,
    SIDE,
    View,
    high_pass,
    local_contrast,
    shrink,
    similarity,
    view,
)

# What is left out, because there is too little to tell two pictures apart by: small, blank, blurred and
# mostly flat ones. Chest X-rays have a texture of 0.59 or more and a detail of 0.10 or more, smooth blobs a
# detail of 0.01.
SMALLEST_SIDE = 96  # pixels
LEAST_CONTRAST = 0.01  # standard deviation over a picture in [0, 1]
LEAST_TEXTURE = 0.5  # mean of the texture of `local_contrast`
LEAST_DETAIL = 0.03  # standard deviation of fine detail over that of the picture

# Similarities, 0 to 1. `benchmarks/studies/data/planted_leaks.py` measures those of copies (0.9 and more), of
# X-rays that seem to be of one person (about 0.7) and of all others (below 0.65).
NEAR_DUPLICATE = 0.83
LOOKALIKE = 0.65

_COARSE_SIDE = 48
_CANDIDATE = 0.60  # coarse correlation of pairs that are looked at closely
_BLOCK = 256  # pictures whose windows are compared at a time: bounds the memory

Progress = Callable[[int, int, str], None]


def picture(image: np.ndarray) -> np.ndarray | None:
    """What is compared of an image (float32 H x W): SIDE x SIDE float16; None if it shows too little."""
    if min(image.shape) < SMALLEST_SIDE:
        return None
    small = shrink(np.asarray(image, np.float32), SIDE)
    contrast = float(small.std())
    if contrast < LEAST_CONTRAST or float(high_pass(small, FINE_DETAIL).std()) < LEAST_DETAIL * contrast:
        return None
    if float(local_contrast(small, FINE_DETAIL)[1].mean()) < LEAST_TEXTURE:
        return None
    return small.astype(np.float16)


def alike_pairs(
    pictures: Sequence[np.ndarray], least: float, progress: Progress | None = None
) -> list[tuple[int, int, float]]:
    """All pairs (i, j, similarity) with i < j and a similarity of at least `least`, at most 1; sorted.

    Args:
        pictures: as `picture` makes them.
        least: above 0. Pairs below about 0.5 may be missing: they aren't looked at closely.
        progress: called with (done, total, text).
    """
    if len(pictures) < 2:
        return []
    found: dict[tuple[int, int], float] = {}

    @lru_cache(maxsize=1024)
    def seen(index: int) -> View:
        return view(pictures[index].astype(np.float32))

    for candidate in _candidates(pictures, progress):
        fixed = seen(candidate.whole).mirrored() if candidate.mirrored else seen(candidate.whole)
        alike = similarity(seen(candidate.part), fixed, candidate.placement)
        pair = min(candidate.part, candidate.whole), max(candidate.part, candidate.whole)
        if alike >= least:
            found[pair] = max(found.get(pair, 0.0), min(alike, 1.0))
    return [(*pair, alike) for pair, alike in sorted(found.items())]


@dataclass(frozen=True)
class _Candidate:
    """A window of the picture `part` that looks like the whole of the picture `whole`."""

    part: int
    whole: int
    mirrored: bool
    placement: np.ndarray  # 2 x 3, from the whole to the part


@dataclass(frozen=True)
class _Span:
    """A stretch of a picture's height or width: where it starts and how long it is, as shares."""

    start: float
    length: float


def _windows() -> list[tuple[_Span, _Span]]:
    """Parts of a picture (rows, columns) of which another may be the copy.

    Steps of 5 % in scale and 2.5 % in place keep the error at 48 pixels below one pixel. Height and width
    are cut apart from each other to 90 %; below, only together and around the middle.
    """
    near = [_Span(0.0, 1.0)]
    near += [_Span(start, 0.95) for start in (0.0, 0.025, 0.05)]
    near += [_Span(start, 0.9) for start in (0.0, 0.025, 0.05, 0.075, 0.1)]
    near += [_Span(start, 1.0) for start in (-0.05, -0.025, 0.025, 0.05)]
    windows = [(rows, columns) for rows in near for columns in near]
    for length in (0.85, 0.8):
        middle = (1 - length) / 2
        spans = [_Span(middle + shift, length) for shift in (-0.05, -0.025, 0.0, 0.025, 0.05)]
        windows += [(rows, columns) for rows in spans for columns in spans]
    return windows


def _candidates(pictures: Sequence[np.ndarray], progress: Progress | None) -> Iterator[_Candidate]:
    windows = _windows()
    details = _details(pictures)
    wholes = _unit(_cut(details, (_Span(0.0, 1.0), _Span(0.0, 1.0))))
    mirrored = _unit(_cut(details[:, :, ::-1], (_Span(0.0, 1.0), _Span(0.0, 1.0))))
    for start in range(0, len(pictures), _BLOCK):
        block = details[start : start + _BLOCK]
        best = np.full((2, len(block), len(pictures)), -1.0, np.float32)
        which = np.zeros(best.shape, np.int16)
        for number, window in enumerate(windows):
            parts = _unit(_cut(block, window))
            for turned, others in enumerate((wholes, mirrored)):
                alike = parts @ others.T
                better = alike > best[turned]
                np.copyto(best[turned], alike, where=better)
                which[turned][better] = number
        yield from _promising(best, which, start, windows)
        if progress:
            progress(min(start + _BLOCK, len(pictures)), len(pictures), "comparing pictures")


def _promising(
    best: np.ndarray, which: np.ndarray, start: int, windows: Sequence[tuple[_Span, _Span]]
) -> Iterator[_Candidate]:
    for turned, row, whole in np.argwhere(best >= _CANDIDATE).tolist():
        if start + row != whole:
            window = windows[which[turned, row, whole]]
            yield _Candidate(start + row, whole, bool(turned), _placement(*window))


def _placement(rows: _Span, columns: _Span) -> np.ndarray:
    """From positions (-1 to 1) in a window to positions in the picture it was cut from."""
    down, right = 2 * rows.start + rows.length - 1, 2 * columns.start + columns.length - 1
    return np.array([[rows.length, 0.0, down], [0.0, columns.length, right]])


def _details(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Local contrast of each picture, n x SIDE x SIDE float32."""
    details = np.empty((len(pictures), SIDE, SIDE), np.float32)
    for index, one in enumerate(pictures):
        details[index] = local_contrast(one.astype(np.float32), ROUGH_DETAIL)[0]
    return details


def _cut(details: np.ndarray, window: tuple[_Span, _Span]) -> np.ndarray:
    """A window of each picture at 48 x 48 pixels; what lies outside a picture is 0."""
    rows, columns = (_resampler(span) for span in window)
    return rows @ details @ columns.T


def _resampler(span: _Span) -> np.ndarray:
    """48 x SIDE weights: a triangle filter as wide as two pixels of the result."""
    step = span.length * SIDE / _COARSE_SIDE
    centres = span.start * SIDE + (np.arange(_COARSE_SIDE) + 0.5) * step
    distance = np.abs(np.arange(SIDE) + 0.5 - centres[:, None])
    return (np.maximum(0.0, 1 - distance / step) / step).astype(np.float32)


def _unit(cuts: np.ndarray) -> np.ndarray:
    """Rows whose products are correlations."""
    rows = cuts.reshape(len(cuts), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
