"""Find near-duplicates: pictures that are resized, cropped, mirrored or otherwise changed copies.

Unrelated chest X-rays look alike: at 32 pixels they correlate up to 0.97. So coarse shading is removed and
local contrast is normalised before anything is compared. Then there are three sieves, each finer than the one
before:

1. Every picture is described by 64 numbers, and so are some windows of it (`descriptor`). Descriptions of all
   pairs are multiplied (`candidates`). This grows with the square of the number of pictures, but a pair takes
   little.
2. A candidate is compared at 48 x 48 pixels with all 219 windows of the other picture (`windows`): parts of
   it, shifted, upright or mirrored.
3. What still looks alike is aligned exactly at 128 x 128 pixels (`alignment`). Only this decides.

Each sieve judges a pair by its two pictures alone. So a pair is found or not whichever pictures are beside it
and in whichever order they come, and what was compared once need not be compared again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby

import numpy as np
from threadpoolctl import threadpool_limits

from lungseg.data.audit import alignment
from lungseg.data.audit.alignment import FINE_DETAIL, ROUGH_DETAIL, SIDE, normalise_contrast
from lungseg.data.audit.candidates import Candidate, find_candidates
from lungseg.data.audit.descriptor import describe_picture
from lungseg.data.audit.windows import cut_whole, cut_windows, list_windows, place
from lungseg.system.machine import count_usable_cores

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

_COARSE = 0.60  # correlation at 48 x 48 pixels of pairs that are aligned
_BLOCK = 256  # pictures compared at a time: bounds the memory, and what an interruption loses
_KEPT_VIEWS, _KEPT_WHOLES = 512, 8192  # pictures kept ready: 75 MB each
_MOST_THREADS = 8

Progress = Callable[[int, int, str], None]
AlikePair = tuple[int, int, float]


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
) -> list[AlikePair]:
    """Find all pairs of pictures of `prepare_picture` whose similarity is at least `least`, which is above 0.

    Pairs below LOOKALIKE may be missing: a sieve before the alignment may drop them. The progress is called
    with (done, total, text). Returns (i, j, similarity) with i < j and `least` <= similarity <= 1, sorted.
    """
    if len(pictures) < 2:
        return []
    descriptions = np.stack([describe_picture(one) for one in pictures])
    found: list[AlikePair] = []
    for _, pairs in compare_blocks(descriptions, pictures.__getitem__, 0, least, progress):
        found += pairs
    return sorted(found)


def compare_blocks(
    descriptions: np.ndarray,
    picture_of: Callable[[int], np.ndarray],
    known: int,
    least: float,
    progress: Progress | None = None,
) -> Iterator[tuple[int, list[AlikePair]]]:
    """Compare pictures block by block, each with all before it.

    Args:
        descriptions: of all pictures, n x ROWS x DIMENSIONS, of `describe_picture`.
        picture_of: gives a picture of `prepare_picture` by its index; several threads call it.
        known: so many pictures at the front were compared with each other before.
        least: the smallest similarity that is reported, above 0.
        progress: called with (pictures compared, all, text).

    Yields:
        after each block, how many pictures at the front have been compared with each other by now, and the
        pairs of `find_alike_pairs` that the block added.
    """
    total = len(descriptions)
    finer = _Finer(picture_of, least)
    threads = min(count_usable_cores(), _MOST_THREADS)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for start in range(known, total, _BLOCK):
            stop = min(start + _BLOCK, total)
            candidates = find_candidates(descriptions, start, stop, pool)
            groups = [list(group) for _, group in groupby(candidates, lambda one: one.part)]
            found: dict[tuple[int, int], float] = {}
            for measured in pool.map(finer.measure, groups):
                for pair, similarity in measured:
                    found[pair] = max(found.get(pair, 0.0), similarity)
            if progress:
                progress(stop, total, "comparing pictures")
            yield stop, [(*pair, similarity) for pair, similarity in sorted(found.items())]


class _Finer:
    """Compares candidates at 48 x 48 pixels and aligns those that still look alike."""

    def __init__(self, picture_of: Callable[[int], np.ndarray], least: float) -> None:
        self._least = least
        self._picture_of = picture_of
        self._view_of = lru_cache(_KEPT_VIEWS)(self._make_view)
        self._whole_of = lru_cache(_KEPT_WHOLES)(lambda index: cut_whole(self._detail_of(index)))

    def measure(self, candidates: Sequence[Candidate]) -> list[tuple[tuple[int, int], float]]:
        """Return pairs and their similarity, if it is large enough. All candidates have the same part."""
        part = candidates[0].part
        windows = cut_windows(self._detail_of(part))
        alike = windows @ np.stack([self._whole_of(one.whole)[int(one.mirrored)] for one in candidates]).T
        best = alike.argmax(axis=0)
        found = []
        for column, one in enumerate(candidates):
            if alike[best[column], column] >= _COARSE:
                similarity = self._align(one, int(best[column]))
                if similarity >= self._least:
                    found.append(((min(part, one.whole), max(part, one.whole)), min(similarity, 1.0)))
        return found

    def _align(self, one: Candidate, window: int) -> float:
        fixed = self._view_of(one.whole)
        if one.mirrored:
            fixed = fixed.mirrored()
        placement = place(list_windows()[window])
        return alignment.measure_similarity(self._view_of(one.part), fixed, placement)

    def _make_view(self, index: int) -> alignment.View:
        return alignment.make_view(self._picture_of(index).astype(np.float32))

    def _detail_of(self, index: int) -> np.ndarray:
        return normalise_contrast(self._picture_of(index).astype(np.float32), ROUGH_DETAIL)[0]
