"""Show a picture, a mask's outline or feature maps on axes without ticks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes


def show(axes: Axes, picture: np.ndarray) -> None:
    """Show a picture in [0, 1]: grey, or RGB."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)


def draw_outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    """Draw the outline of a bool mask, `width` points wide."""
    if mask.any() and min(mask.shape) > 1:
        # A border of zeros closes the outline where the mask touches the image's edge.
        padded = np.pad(mask.astype(float), 1)
        y, x = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=[width])
        axes.set_xlim(-0.5, mask.shape[1] - 0.5)
        axes.set_ylim(mask.shape[0] - 0.5, -0.5)


def hide_axes(axes: Axes) -> None:
    """Hide ticks and frame; labels can still be set."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def find_aspect(picture: np.ndarray) -> float:
    """Return height / width."""
    return picture.shape[0] / picture.shape[1]


def make_mosaic(maps: np.ndarray, columns: int, rows: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Put maps (C x h x w) into one picture in [0, 1]; return it and the distance (y, x) between tiles."""
    gap = max(1, round(0.04 * maps.shape[2]))
    pitch = maps.shape[1] + gap, maps.shape[2] + gap
    mosaic = np.ones((rows * pitch[0] - gap, columns * pitch[1] - gap), np.float32)
    for index, single in enumerate(maps):
        y, x = index // columns * pitch[0], index % columns * pitch[1]
        mosaic[y : y + maps.shape[1], x : x + maps.shape[2]] = stretch(single)
    return mosaic, pitch


def stretch(single: np.ndarray) -> np.ndarray:
    """Scale a map so that its 1st and 99th percentiles are 0 and 1; a constant one is 0.5."""
    finite = single[np.isfinite(single)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 0.0)
    if high - low <= 1e-6 * max(1.0, abs(high)):
        # A map that differs in less than 1 % of its pixels is shown in its whole range.
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if high <= low:
        return np.full(single.shape, 0.5, np.float32)
    return np.clip((np.nan_to_num(single, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)
