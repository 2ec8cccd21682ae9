"""Take the maps that an approach makes, or refuse them with what is wrong and the value that shows it."""

from __future__ import annotations

from typing import Any

import numpy as np

HAIR = 1e-3  # so far outside [0, 1] rounding may have put a value


def check_map(values: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return a map of probabilities as float32, H x W, in [0, 1].

    Args:
        values: an array, a torch tensor or nested lists: floating point, bool, or integers that are 0 or 1.
            Values up to 1e-3 outside [0, 1] are clipped.
        shape: (H, W) of the image.

    Raises:
        ValueError: another shape or type, a value that is not finite, or one farther outside.
    """
    if hasattr(values, "detach"):  # of torch, maybe on a GPU
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    if np.ma.is_masked(values):
        raise ValueError("it is a masked array: fill it with probabilities")
    try:
        found = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise ValueError(f"it is a {type(values).__name__} of no rectangular shape") from None
    if found.shape != tuple(shape):
        raise ValueError(f"its shape is {found.shape} and its image's {tuple(shape)}")
    if found.dtype.kind in "bui":
        return _zero_or_one(found)
    if found.dtype.kind != "f":
        raise ValueError(f"its type is {found.dtype}, and no type of numbers in [0, 1]")
    return _within_bounds(found)


def _zero_or_one(found: np.ndarray) -> np.ndarray:
    low, high = found.min(), found.max()
    if low < 0 or high > 1:
        raise ValueError(f"it has the integer {low if low < 0 else high}: give 0 and 1, or probabilities")
    return found.astype(np.float32)


def _within_bounds(found: np.ndarray) -> np.ndarray:
    low, high = float(found.min()), float(found.max())
    if not np.isfinite(low + high):
        raise ValueError(f"it has a value that is not finite ({low if not np.isfinite(low) else high})")
    if low < -HAIR or high > 1 + HAIR:
        raise ValueError(f"it has the value {low if low < -HAIR else high:.6g}, which is not in [0, 1]")
    return np.clip(found, 0, 1).astype(np.float32, copy=False)
