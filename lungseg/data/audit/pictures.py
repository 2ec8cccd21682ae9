"""Find near-duplicates: pictures that are resized, cropped, mirrored or otherwise changed copies.

Unrelated chest X-rays look alike: at 32 pixels they correlate up to 0.97. So coarse shading is removed and
local contrast is normalised before anything is compared. Every picture is then compared at 48 x 48 pixels
with windows of every other one (parts of it, shifted, mirrored) by matrix products. The few pairs that look
alike are aligned exactly at 128 x 128 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lungseg.data.audit import alignment
from lungseg.data.audit.alignment import FINE_DETAIL, ROUGH_DETAIL, SIDE, normalise_contrast

# Small, blank, blurred and mostly flat pictures are left out: they show too little to be distinguishable.
# Chest X-rays have a texture of 0.59 or more and a detail of 0.10 or more, smooth blobs a detail of 0.01.
SMALLEST_SIDE = 96  # pixels
LEAST_CONTRAST = 0.01  # standard deviation over a picture in [0, 1]
LEAST_TEXTURE = 0.5  # mean of the texture of `normalise_contrast`
LEAST_DETAIL = 0.03  # standard deviation of fine detail over that of the picture

# Similarities, 0 to 1. `benchmarks/studies/data/planted_leaks.py` measures those of copies (0.9 and more), of
# X-rays that seem to be of one person (about 0.7) and of all others (below 0.65).
NEAR_DUPLICATE = 0.83
LOOKALIKE = 0.65

_COARSE_SIDE = 48
_CANDIDATE = 0.60  # coarse correlation of pairs that are aligned
_BLOCK = 256  # pictures whose windows are compared at a time: bounds the memory

Progress = Callable[[int, int, str], None]


def prepare_picture(image: np.ndarray) -> np.ndarray | None:
    """Return what is compared of an image (H x W): SIDE x SIDE float16; None if it shows too little."""
    if min(image.shape) < SMALLEST_SIDE:
        return None
    small = alignment.shrink(np.asarray(image, np.float32), SIDE)
    contrast = float(small.std())
    detail = float(alignment.high_pass(small, FINE_DETAIL).std())
    if contrast < LEAST_CONTRAST or detail < LEAST_DETAIL * contrast:
        return None
    if float(normalise_contrast(small, FINE_DETAIL)[1].mean()) < LEAST_TEXTURE:
        return None
    return small.astype(np.float16)


def find_alike_pairs(
    pictures: Sequence[np.ndarray], least: float, progress: Progress | None = None
) -> list[tuple[int, int, float]]:
    """Find all pairs of pictures of `prepare_picture` whose similarity is at least `least`, which is above 0.

    Pairs below about 0.5 may be missing, because they are never aligned. The progress is called with (done,
    total, text). Returns (i, j, similarity) with i < j and `least` <= similarity <= 1, sorted.
    """
    if len(pictures) < 2:
        return []
    found: dict[tuple[int, int], float] = {}

    @lru_cache(maxsize=1024)
    def view_of(index: int) -> alignment.View:
        return alignment.make_view(pictures[index].astype(np.float32))

    for candidate in _candidates(pictures, progress):
        fixed = view_of(candidate.whole)
        if candidate.mirrored:
            fixed = fixed.mirrored()
        similarity = alignment.measure_similarity(view_of(candidate.part), fixed, candidate.placement)
        pair = min(candidate.part, candidate.whole), max(candidate.part, candidate.whole)
        if similarity >= least:
            found[pair] = max(found.get(pair, 0.0), min(similarity, 1.0))
    return [(*pair, similarity) for pair, similarity in sorted(found.items())]


@dataclass(frozen=True)
class _Candidate:
    """A window of the picture `part` that looks like the whole of the picture `whole`."""

    part: int
    whole: int
    mirrored: bool
    placement: np.ndarray  # 2 x 3, from the whole to the part


@dataclass(frozen=True)
class _Span:
    """A stretch of a picture's height or width: its start and length, as shares."""

    start: float
    length: float


def _windows() -> list[tuple[_Span, _Span]]:
    """Windows (rows, columns) of a picture of which another picture may be the copy.

    Steps of 5 % in scale and 2.5 % in place keep the error at 48 pixels below one pixel. Down to 90 % height
    and width vary independently; below, only together and around the middle.
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
            for flip, others in enumerate((wholes, mirrored)):
                alike = parts @ others.T
                better = alike > best[flip]
                np.copyto(best[flip], alike, where=better)
                which[flip][better] = number
        for flip, row, whole in np.argwhere(best >= _CANDIDATE).tolist():
            if start + row != whole:
                placement = _placement(*windows[which[flip, row, whole]])
                yield _Candidate(start + row, whole, bool(flip), placement)
        if progress:
            progress(min(start + _BLOCK, len(pictures)), len(pictures), "comparing pictures")


def _placement(rows: _Span, columns: _Span) -> np.ndarray:
    """The placement from positions (-1 to 1) in a window to positions in its picture."""
    down, right = (2 * span.start + span.length - 1 for span in (rows, columns))
    return np.array([[rows.length, 0.0, down], [0.0, columns.length, right]])


def _details(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Local contrast of each picture, n x SIDE x SIDE float32."""
    return np.stack([normalise_contrast(one.astype(np.float32), ROUGH_DETAIL)[0] for one in pictures])


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
