"""Read JSRT's digitised films: files that hold pixels and no header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungseg.system.errors import InputError

SUFFIX = ".img"
SPACING = 2 * 0.175  # mm, of an image that is read
SIDE, BITS = 2048, 12  # of what is stored


def is_film(path: Path) -> bool:
    """Return whether a file is one of JSRT's, by its ending."""
    return path.suffix.lower() == SUFFIX


def film_size() -> tuple[int, int]:
    """Return (height, width) of an image that is read."""
    return SIDE // 2, SIDE // 2


def read_film(path: Path) -> np.ndarray:
    """Read a film, halved (the mean of 2 x 2 pixels) and turned over so that white is dense.

    A file is 2048 x 2048 big-endian samples of 16 bits, of which 12 are used. They are optical densities of
    film: a high one is dark, for much radiation came through (air). So 4095 becomes 0.0 and 0 becomes 1.0.

    Returns:
        float32, 1024 x 1024, in [0, 1].

    Raises:
        InputError: the file can't be read, has another length, or a value of more bits (as with the bytes of
            a sample swapped).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
    wanted = 2 * SIDE * SIDE
    if len(data) != wanted:
        raise InputError(
            f"{path} has {len(data)} bytes and not {wanted} ({SIDE} x {SIDE} pixels of 16 bits): "
            "copy it again"
        )
    values = np.frombuffer(data, ">u2")
    top = 2**BITS - 1
    if values.max() > top:
        raise InputError(
            f"{path} has the value {values.max()}, but {BITS} bits end at {top}: copy the original file, "
            "whose samples are big-endian"
        )
    dense = ((top - values.astype(np.float32)) / np.float32(top)).astype(np.float32)
    height, width = film_size()
    return dense.reshape(height, 2, width, 2).mean(axis=(1, 3))
