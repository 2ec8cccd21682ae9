"""Cut windows out of pictures: the parts of one picture of which another picture may be the copy.

Everything here works on local contrast (`alignment.normalise_contrast`) of SIDE x SIDE pixels, and gives rows
of 48 x 48 pixels whose products are correlations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lungseg.data.audit.alignment import SIDE

COARSE_SIDE = 48


@dataclass(frozen=True)
class Span:
    """A stretch of a picture's height or width: its start and length, as shares."""

    start: float
    length: float


Window = tuple[Span, Span]  # rows, columns
WHOLE: Window = (Span(0.0, 1.0), Span(0.0, 1.0))


@lru_cache(maxsize=1)
def list_windows() -> tuple[Window, ...]:
    """List the windows of a picture of which another picture may be the copy.

    Steps of 5 % in scale and 2.5 % in place keep the error at 48 pixels below one pixel. Down to 90 % height
    and width vary independently; below, only together and around the middle.
    """
    near = [Span(0.0, 1.0)]
    near += [Span(start, 0.95) for start in (0.0, 0.025, 0.05)]
    near += [Span(start, 0.9) for start in (0.0, 0.025, 0.05, 0.075, 0.1)]
    near += [Span(start, 1.0) for start in (-0.05, -0.025, 0.025, 0.05)]
    windows = [(rows, columns) for rows in near for columns in near]
    for length in (0.85, 0.8):
        middle = (1 - length) / 2
        spans = [Span(middle + shift, length) for shift in (-0.05, -0.025, 0.0, 0.025, 0.05)]
        windows += [(rows, columns) for rows in spans for columns in spans]
    return tuple(windows)


def cut_windows(detail: np.ndarray) -> np.ndarray:
    """Cut all windows of `list_windows` out of a picture: float32 rows of length 1, windows x 48 * 48."""
    stretched: dict[Span, np.ndarray] = {}
    cuts = []
    for rows, columns in list_windows():
        if rows not in stretched:
            stretched[rows] = _resampler(rows) @ detail
        cuts.append(stretched[rows] @ _resampler(columns).T)
    return to_unit_rows(np.stack(cuts))


def cut_whole(detail: np.ndarray) -> np.ndarray:
    """Return the whole of a picture and of its mirror image, as rows of `cut_windows`: 2 x 48 * 48."""
    rows, columns = (_resampler(span) for span in WHOLE)
    return to_unit_rows(np.stack([rows @ one @ columns.T for one in (detail, detail[:, ::-1])]))


def place(window: Window) -> np.ndarray:
    """Return the placement (2 x 3) from positions (-1 to 1) in a window to positions in its picture."""
    rows, columns = window
    down, right = (2 * span.start + span.length - 1 for span in window)
    return np.array([[rows.length, 0.0, down], [0.0, columns.length, right]])


def to_unit_rows(cuts: np.ndarray) -> np.ndarray:
    """Flatten each cut, subtract its mean and scale it to length 1."""
    rows = cuts.reshape(len(cuts), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


@lru_cache(maxsize=64)
def _resampler(span: Span) -> np.ndarray:
    """48 x SIDE weights: a triangle filter as wide as two pixels of the result; 0 outside the picture."""
    step = span.length * SIDE / COARSE_SIDE
    centres = span.start * SIDE + (np.arange(COARSE_SIDE) + 0.5) * step
    distance = np.abs(np.arange(SIDE) + 0.5 - centres[:, None])
    return (np.maximum(0.0, 1 - distance / step) / step).astype(np.float32)
