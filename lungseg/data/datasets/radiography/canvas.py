"""The pixel grid in the patient's centimetres, and the shapes and random fields that are drawn on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

TABLE_LENGTH = 8192  # entries of a tabulated curve: finer than a pixel at the largest size
TABLE_RANGE = (-30.0, 60.0)  # cm that a tabulated curve covers


@dataclass(frozen=True)
class Frame:
    """How the patient lies in the picture."""

    width: float  # what the picture's sides span, cm; they differ: real sets squeeze a radiograph to a square
    height: float
    origin_x: float  # where the patient's origin lies, in sides of the picture
    origin_y: float
    tilt: float  # rotation in the plane of the picture, radians


class Canvas:
    """Coordinates of the centres of all pixels of a picture with a side of `size` pixels.

    `x` and `y` (float32, size x size) are cm in the patient's frame, moved by `warp`: cm in x and in y,
    likewise float32. `pixel` is the mean distance of two pixels, cm.
    """

    WARP_MARGIN = 1.0  # cm by which windows are widened, so that the warp never cuts a shape

    def __init__(self, size: int, frame: Frame, warp: tuple[np.ndarray, np.ndarray]) -> None:
        self.size, self.frame = size, frame
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        right = ((centres - frame.origin_x) * frame.width)[None, :]
        down = ((centres - frame.origin_y) * frame.height)[:, None]
        self.cosine, self.sine = cosine, sine = math.cos(frame.tilt), math.sin(frame.tilt)
        self.x = right * cosine + down * sine + warp[0]
        self.y = down * cosine - right * sine + warp[1]
        self.pixel = 0.5 * (frame.width + frame.height) / size

    def zeros(self) -> np.ndarray:
        """Return an empty picture: float32, size x size."""
        return np.zeros((self.size, self.size), np.float32)

    def window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        """Return the rows and columns that hold a box given in cm; empty slices if it lies outside."""
        frame, margin = self.frame, self.WARP_MARGIN
        middle_x, middle_y = 0.5 * (left + right), 0.5 * (top + bottom)
        half_x, half_y = 0.5 * (right - left), 0.5 * (bottom - top)
        cosine, sine = self.cosine, self.sine
        across, along = middle_x * cosine - middle_y * sine, middle_x * sine + middle_y * cosine
        half_across = half_x * cosine + half_y * abs(sine) + margin
        half_along = half_x * abs(sine) + half_y * cosine + margin
        return (
            self._pixels(along, half_along, frame.height, frame.origin_y),
            self._pixels(across, half_across, frame.width, frame.origin_x),
        )

    def _pixels(self, middle: float, half: float, span: float, origin: float) -> slice:
        first = math.floor(((middle - half) / span + origin) * self.size)
        last = math.ceil(((middle + half) / span + origin) * self.size)
        first = min(max(first, 0), self.size)
        return slice(first, min(max(last, first), self.size))

    def ramp(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """Return 0 outside (negative distance, cm) and 1 inside, with a linear edge between.

        The edge is as wide as the larger of `softness` cm and one pixel.
        """
        return np.clip(distance * (1.0 / max(softness, self.pixel)) + 0.5, 0.0, 1.0)


class Curve:
    """A function of one coordinate (cm), tabulated so that a whole picture is one look-up."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.table = function(np.linspace(*TABLE_RANGE, TABLE_LENGTH)).astype(np.float32)

    def __call__(self, coordinate: np.ndarray) -> np.ndarray:
        low, high = TABLE_RANGE
        scale = (TABLE_LENGTH - 1) / (high - low)
        return self.table[np.clip((coordinate - low) * scale + 0.5, 0, TABLE_LENGTH - 1).astype(np.int32)]


def chord(distance_squared: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    """Return the path (cm) through a cylinder or sphere at a squared distance (cm^2) from its axis."""
    return 2.0 * np.sqrt(np.maximum(radius * radius - distance_squared, 0.0))


def segment_distance(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distance (cm^2) to a line segment, and the nearest point's place on it in [0, 1]."""
    step_x, step_y = end[0] - start[0], end[1] - start[1]
    length_squared = max(step_x * step_x + step_y * step_y, 1e-9)
    along = np.clip(((x - start[0]) * step_x + (y - start[1]) * step_y) * (1.0 / length_squared), 0.0, 1.0)
    off_x, off_y = x - start[0] - along * step_x, y - start[1] - along * step_y
    return off_x * off_x + off_y * off_y, along


def ellipse(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], axes: tuple[float, float], tilt: float = 0.0
) -> np.ndarray:
    """Return the distance from the centre over the ellipse's radius in that direction: 1 on the edge."""
    off_x, off_y = x - centre[0], y - centre[1]
    cosine, sine = float(np.cos(tilt)), float(np.sin(tilt))
    first = (off_x * cosine + off_y * sine) * (1.0 / axes[0])
    second = (off_y * cosine - off_x * sine) * (1.0 / axes[1])
    return np.sqrt(first * first + second * second)


def _gaussian_rows(size: int, cells: int, sigma: float) -> np.ndarray:
    """size x cells Gaussian weights between centres of pixels and cells; sigma in sides of the picture."""
    pixels = (np.arange(size, dtype=np.float32) + 0.5) / size
    centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    return np.exp(-0.5 * ((pixels[:, None] - centres[None, :]) / sigma) ** 2)


@lru_cache(maxsize=64)
def _field_rows(size: int, cells: int) -> np.ndarray:
    weights = _gaussian_rows(size, cells, max(0.55 / cells, 0.5 / size))
    return weights / np.sqrt((weights * weights).sum(1, keepdims=True))


def smooth_field(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Draw a smooth Gaussian random field of unit variance: float32, size x size.

    It has about `cells` independent values along a side at any size. So the same state of `rng` gives the
    same field at every size.
    """
    rows = _field_rows(size, cells)
    return rows @ rng.standard_normal((cells, cells), dtype=np.float32) @ rows.T


@lru_cache(maxsize=16)
def _average_rows(size: int, cells: int) -> np.ndarray:
    """cells x size weights of the area average."""
    edges = np.arange(cells + 1) * size / cells
    pixel = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(overlap, 0) * cells / size).astype(np.float32)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a square float32 field by a Gaussian; `sigma` in sides of the picture.

    A wide blur is made on a coarse grid of averages, whose cells are no wider than sigma; that is faster.
    """
    size = field.shape[0]
    if sigma * size < 1.5:
        return gaussian_filter(field, sigma * size, truncate=3.0)
    cells = int(np.clip(np.ceil(1.2 / sigma), 8, size))
    down = _average_rows(size, cells)
    up = _gaussian_rows(size, cells, max(sigma, 0.5 / cells))
    up /= up.sum(1, keepdims=True)
    return up @ (down @ field @ down.T) @ up.T
