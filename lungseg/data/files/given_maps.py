"""Read the masks and probability maps of other programs: pictures of 8 or 16 bits, or NPY."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungseg.data.files.images import read_mask
from lungseg.data.files.matching import SUFFIXES
from lungseg.data.files.raster import read_raster
from lungseg.system.errors import InputError

ENDINGS = (*SUFFIXES, ".npy")
MOST_LABELS = 32  # a picture of so few values may be a map of labels
HAIR = 1e-3  # so far outside [0, 1] rounding may have put a value


def list_given_files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """List the masks of a folder by the id of their image: their name without `suffix` and ending.

    Raises InputError if the folder is missing or holds none, or two files have one id.
    """
    if not folder.is_dir():
        raise InputError(f"the folder of masks {folder} doesn't exist: check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.startswith(".") or not path.is_file():
            continue
        name = path.stem.removesuffix(suffix)
        if name in found:
            raise InputError(
                f"{found[name]} and {path} are both masks of {name}: remove or rename one of them"
            )
        found[name] = path
    if not found:
        raise InputError(f"the folder {folder} holds no mask ({', '.join(ENDINGS)}): check the path")
    return found


def read_given_map(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a mask or a probability map as float32, H x W, in [0, 1].

    - A picture of one or two values is a mask, read as `read_mask` does: the larger value is lung.
    - Any other grey picture is a map: its values are divided by 255 (8 bits) or 65535 (16 bits); floating
      point is taken as it is. With 32 values or fewer it must have two labels, as `read_mask` counts them.
    - An NPY array of booleans, or of integers with one or two values, is a mask: 0 isn't lung, the other is.
      Other uint8 and uint16 arrays are divided as pictures are. Floating point is taken as it is, and clipped
      if it is within 0.001 of [0, 1].

    Args:
        path: the file.
        shape: (H, W) of the truth.

    Raises:
        InputError: the file can't be read, has another size, colours or several labels (such as 0, 1, 2), or
            values that are not finite or not in [0, 1].
    """
    if path.suffix.lower() == ".npy":
        return _check(_read_array(path), path, shape)
    raster = read_raster(path)
    values = np.unique(raster.values)
    if len(values) <= 2:
        return read_mask(path, shape).astype(np.float32)
    if raster.white_is_zero or raster.indices is not None or raster.colourful:
        raise InputError(f"{path} is neither a mask of two values nor a grey map: save it as 8-bit grey PNG")
    found = raster.values
    if found.dtype.kind == "f":
        return _check(found, path, shape)
    if len(values) <= MOST_LABELS:
        read_mask(path, shape)  # refuses several labels; a soft mask has two
        if values[-1] != _find_white(found):
            raise InputError(
                f"{path} has the values {', '.join(map(str, values[:6]))} and it isn't clear which of them "
                "are lung: save it with two values, 0 and 255"
            )
    return _check(found / _find_white(found), path, shape)


def _read_array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no readable NPY array ({error}): save it with numpy.save") from error
    if values.dtype.kind not in "buif":
        raise InputError(f"{path} holds {values.dtype} and no numbers: save booleans or probabilities")
    if values.dtype.kind in "ui":
        found = np.unique(values)
        if len(found) <= 2 and found[0] == 0:
            return (values > 0).astype(np.float32)
        if values.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"{path} holds the integers {found[0]} to {found[-1]}: save 0 and 1, or probabilities"
            )
        return values / _find_white(values)
    return values.astype(np.float32)


def _find_white(values: np.ndarray) -> np.float32:
    """The value that stands for 1."""
    return np.float32(255 if values.dtype == np.uint8 else 65535)


def _check(values: np.ndarray, path: Path, shape: tuple[int, int]) -> np.ndarray:
    if values.shape != tuple(shape):
        height_width = " x ".join(map(str, reversed(values.shape)))
        raise InputError(
            f"{path} is {height_width} pixels but its truth is {shape[1]} x {shape[0]}: resize it, "
            "or give the mask of this image"
        )
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise InputError(f"{path} has values that are not finite (NaN or infinity): replace them")
    if low < -HAIR or high > 1 + HAIR:
        raise InputError(
            f"{path} has the value {low if low < -HAIR else high:.6g}, which is not in [0, 1]: give "
            "probabilities, or save it as an 8-bit or 16-bit picture"
        )
    return np.clip(values, 0, 1).astype(np.float32)
