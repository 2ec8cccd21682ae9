"""Scale stored grey values to [0, 1]."""

from __future__ import annotations

import numpy as np

# Bits of detectors and formats; a 12-bit X-ray is usually stored in a 16-bit file that doesn't say so.
_BITS = (8, 10, 12, 14, 16, 24, 32)


def to_unit(values: np.ndarray, bits: int | None) -> np.ndarray:
    """Scale stored values of any type to float32 in [0, 1] by the rule of `read_image`.

    `bits` are those of a sample where they are known (8 for uint8), else None.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return ((values - np.float64(low)) / max(high - low, np.finfo(float).tiny)).astype(np.float32)
    if values.dtype.kind == "f" and high <= 1:
        return values.astype(np.float32)
    if bits is None or bits >= 16:
        bits = next((b for b in _BITS if high <= 2**b - 1), None)
    elif high > 2**bits - 1:
        bits = 16  # PNG wants samples of fewer bits scaled up to the file's own
    top = high if bits is None else float(2**bits - 1)
    return (values / np.float64(top)).astype(np.float32)


def signed_to_unit(values: np.ndarray) -> np.ndarray:
    """Scale signed integers to float32 in [0, 1].

    The smallest range of 8, 10, 12, 14 or 16 bits that holds the values counts, if they span at least half of
    it. Else their zero says nothing, and `to_unit` takes their own minimum and maximum.
    """
    low, high = int(values.min()), int(values.max())
    half = next((2 ** (b - 1) for b in _BITS if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1)), 0)
    if low >= 0 or high - low < half:
        return to_unit(values, None)
    return ((values.astype(np.float64) + half) / (2 * half - 1)).astype(np.float32)


def apply_window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Show values through a window: float32 in [0, 1].

    Args:
        values: of any type, after the modality's rescaling.
        centre, width: of the window; the width is above 0, and at least 1 for "LINEAR".
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID", as in DICOM PS3.3, C.11.2.1.
    """
    away = values.astype(np.float64) - centre
    if function == "SIGMOID":
        shown = 1 / (1 + np.exp(np.clip(-4 * away / width, -700, 700)))
    elif function == "LINEAR_EXACT":
        shown = away / width + 0.5
    elif width == 1:
        shown = away > -0.5
    else:
        shown = (away + 0.5) / (width - 1) + 0.5
    return np.clip(shown, 0, 1).astype(np.float32)
