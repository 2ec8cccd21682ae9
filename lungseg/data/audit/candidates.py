"""Find the few pairs of pictures that may be copies, by products of their descriptions.

Two pictures are a candidate if a window of one is described like the whole of the other or of its mirror
image. That depends on the two alone, not on what else is compared. So the same pairs are found in any order,
and when pictures are added later.

The products are exact, so their number grows with the square of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Least product of two descriptions, chosen so that no copy in `benchmarks/studies/data/planted_leaks.py` that
# the alignment finds is dropped, nor two X-rays of one person.
LEAST_ALIKE = 0.78
_CHUNK = 512  # pictures against which a block is compared at a time: its products stay in the cache


class Candidate(NamedTuple):
    """A window of the picture `part` may show the whole of the picture `whole`."""

    part: int
    whole: int
    mirrored: bool


@dataclass(frozen=True)
class _Task:
    parts: slice
    wholes: slice


def find_candidates(descriptions: np.ndarray, start: int, stop: int, pool: Executor) -> list[Candidate]:
    """Compare the pictures from `start` to `stop` with each other and with all before them.

    Args:
        descriptions: of all pictures, n x ROWS x DIMENSIONS float16, of `describe_picture`.
        start: the first picture of the block.
        stop: the first one behind it.
        pool: threads that compare.

    Returns:
        the candidates, sorted, in both roles: each picture as a part and as a whole.
    """
    block = slice(start, stop)
    tasks = [_Task(block, chunk) for chunk in _chunks(stop)]
    tasks += [_Task(chunk, block) for chunk in _chunks(start)]
    found = pool.map(lambda task: list(_compare(descriptions, task)), tasks)
    return sorted(candidate for some in found for candidate in some)


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, min(start + _CHUNK, count))


def _compare(descriptions: np.ndarray, task: _Task) -> Iterator[Candidate]:
    wholes = descriptions[task.wholes, :2].astype(np.float32)
    wholes = np.concatenate([wholes[:, 0], wholes[:, 1]]).T  # all upright ones, then all mirrored ones
    windows = descriptions[task.parts, 2:].astype(np.float32).transpose(1, 0, 2)
    best = windows[0] @ wholes
    alike = np.empty_like(best)
    for window in windows[1:]:
        np.matmul(window, wholes, out=alike)
        np.maximum(best, alike, out=best)
    count = wholes.shape[1] // 2
    for row, column in np.argwhere(best >= LEAST_ALIKE).tolist():
        part, whole = task.parts.start + row, task.wholes.start + column % count
        if part != whole:
            yield Candidate(part, whole, column >= count)
