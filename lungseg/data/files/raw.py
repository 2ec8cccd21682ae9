"""Read files that hold pixels and no header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungseg.system.errors import InputError


def read_raw_density(path: Path, side: int, bits: int) -> np.ndarray:
    """Read a square of big-endian 16-bit optical densities of film, turned over so that white is dense.

    A high optical density is dark film, where much radiation came through (air). So the value that becomes
    0.0 is 2^bits - 1, and 0 becomes 1.0.

    Args:
        path: the file, side x side x 2 bytes.
        side: height and width in pixels.
        bits: of a sample that are used.

    Returns:
        float32, side x side, in [0, 1].

    Raises:
        InputError: the file can't be read, has another length, or a value of more bits (as with the bytes of
            a sample swapped).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
    wanted = 2 * side * side
    if len(data) != wanted:
        raise InputError(
            f"{path} has {len(data)} bytes and not {wanted} ({side} x {side} pixels of 16 bits): "
            "copy it again"
        )
    values = np.frombuffer(data, ">u2").reshape(side, side)
    top = 2**bits - 1
    if values.max() > top:
        raise InputError(
            f"{path} has the value {values.max()}, but {bits} bits end at {top}: copy the original file, "
            "whose samples are big-endian"
        )
    return ((top - values.astype(np.float32)) / np.float32(top)).astype(np.float32)
