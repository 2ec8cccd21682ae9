"""The part of an image where its masks are: what lies outside needn't be looked at."""

from __future__ import annotations

import numpy as np


def bounding_box(*masks: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest box that holds every True pixel of all masks.

    Args:
        masks: bool, H x W, all of one shape.

    Returns:
        slices of rows and of columns; None if all masks are empty.
    """
    rows, columns = (
        np.flatnonzero(np.logical_or.reduce([mask.any(axis=axis) for mask in masks])) for axis in (1, 0)
    )
    if len(rows) == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
