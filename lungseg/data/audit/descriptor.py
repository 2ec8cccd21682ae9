"""Describe a picture by few numbers, so that it can be compared with a great many others.

A description is taken of the whole picture, of its mirror image and of some windows. It survives resizing,
compression, another gamma, and a crop or a shift near one of the windows:

- Coarse shading is removed and local contrast is normalised, as for the exact comparison, but wider.
- Of each window the low frequencies of its cosine transform are kept. They change little if a window is
  slightly off.
- A fixed matrix leaves the 64 directions in which different pictures differ most, compared with copies of one
  picture: linear discriminant analysis (Fisher 1936; Rao 1948). What all chest X-rays share is gone then.

The matrix was learned from phantoms and changed copies of them, never from X-rays, by
`benchmarks/studies/data/audit_projection.py`. Descriptions have length 1, so their product is how alike two
pictures are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from lungseg.data.audit.alignment import SIDE, normalise_contrast
from lungseg.data.audit.windows import WHOLE, Span, Window

PROJECTION = Path(__file__).with_name("projection.safetensors")
DIMENSIONS = 64
_DETAIL = 8.0  # sigma (pixels at SIDE) of the blur that is subtracted
_LOWEST, _HIGHEST = 2, 16  # frequencies kept: half waves across a window, as the radius over both directions


def list_coarse_windows() -> tuple[Window, ...]:
    """List the windows that are described: the whole, cuts at sides and corners, and shifts.

    Of opposite shifts one is enough: of two pictures, each is a part and a whole. Only a shift to the side is
    needed both ways, as a mirror image is shifted to the other one.
    """
    spans = [Span(0.0, 1.0), Span(0.0, 0.93), Span(0.035, 0.93), Span(0.07, 0.93)]
    middle = [Span((1 - length) / 2, length) for length in (0.85, 0.8)]
    up, still, down = (Span(start, 1.0) for start in (-0.05, 0.0, 0.05))
    shifts = ((still, up), (still, down), (down, up), (down, still), (down, down))
    cuts = ((rows, columns) for rows in spans for columns in spans)
    return (*cuts, *((span, span) for span in middle), *shifts)


WINDOWS = list_coarse_windows()
ROWS = 2 + len(WINDOWS)  # of a description: the whole, its mirror image, the windows


def describe_picture(picture: np.ndarray) -> np.ndarray:
    """Describe a SIDE x SIDE picture: float16, ROWS x DIMENSIONS, each row of length 1."""
    mean, matrix = _read_projection()
    rows = (measure_frequencies(picture) - mean) @ matrix
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float16)


def measure_frequencies(picture: np.ndarray) -> np.ndarray:
    """Return the low frequencies of the whole, its mirror image and the windows, before the projection.

    float32, ROWS x frequencies, each row of length 1.
    """
    detail = normalise_contrast(np.asarray(picture, np.float32), _DETAIL)[0]
    basis = _bases()
    down, right = (basis.heights @ detail, basis.widths)
    windows = [
        (down[rows] @ right[columns].T)[basis.kept]
        for rows, columns in ((basis.places[rows], basis.places[columns]) for rows, columns in WINDOWS)
    ]
    whole = basis.places[WHOLE[0]]
    upright = (down[whole] @ right[whole].T)[basis.kept]
    rows = np.stack([upright, upright * basis.signs, *windows]) * basis.weights
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class _Bases:
    heights: np.ndarray  # the cosines of all spans, below each other: spans * _HIGHEST x SIDE
    widths: np.ndarray
    places: dict[Span, slice]  # where the cosines of a span are
    kept: np.ndarray  # of _HIGHEST x _HIGHEST frequencies
    weights: np.ndarray  # that make the cosines of a window orthonormal
    signs: np.ndarray  # of a mirror image's frequencies


@lru_cache(maxsize=1)
def _bases() -> _Bases:
    spans = list(dict.fromkeys([*WHOLE, *(span for window in WINDOWS for span in window)]))
    cosines = np.concatenate([_cosines(span) for span in spans])
    numbers = np.arange(_HIGHEST)
    radius = np.hypot(numbers[:, None], numbers)
    kept = (radius >= _LOWEST) & (radius < _HIGHEST)
    scale = np.where(numbers == 0, 0.5**0.5, 1.0)
    signs = np.where(numbers % 2, -1.0, 1.0) * np.ones((_HIGHEST, 1))
    places = {span: slice(i * _HIGHEST, (i + 1) * _HIGHEST) for i, span in enumerate(spans)}
    weights = (scale[:, None] * scale)[kept].astype(np.float32)
    return _Bases(cosines, cosines, places, kept, weights, signs[kept].astype(np.float32))


def _cosines(span: Span) -> np.ndarray:
    """The first cosines across a span, 0 outside: _HIGHEST x SIDE."""
    across = ((np.arange(SIDE) + 0.5) / SIDE - span.start) / span.length
    inside = (across >= 0) & (across <= 1)
    waves = np.cos(np.pi * np.arange(_HIGHEST)[:, None] * across) * inside
    return (waves / (span.length * SIDE)).astype(np.float32)


@lru_cache(maxsize=1)
def _read_projection() -> tuple[np.ndarray, np.ndarray]:
    """The mean that is subtracted, and the matrix, frequencies x DIMENSIONS."""
    learned = load(PROJECTION.read_bytes())
    return learned["mean"], learned["matrix"]
