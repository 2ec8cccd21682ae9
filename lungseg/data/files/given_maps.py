"""Read the masks and probability maps of other programs: pictures of 8 or 16 bits, or NPY."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungseg.data.files.images import read_mask, require_two_labels
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

    Pictures of up to 16 bits, and NPY arrays of integers:
    - All 0, or 0 and one other value: a mask. All 1, or all white (255, or 65535 with 16 bits): all lung.
    - More values: a map, divided by 255 or 65535. With 32 values or fewer it must have two labels, as
      `read_mask` counts them, and hold white.
    NPY arrays of booleans are masks. Floating point is a map, clipped if it is within 0.001 of [0, 1]; with 0
    and one value above 1 it is a mask.

    Args:
        path: the file.
        shape: (H, W) of the truth.

    Raises:
        InputError: the file can't be read, has another size, colours or several labels (such as 0, 1, 2), or
            values that are not finite or not in [0, 1].
    """
    values = _read_array(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    if values.dtype == bool:
        return _check(values, path, shape)
    found = np.unique(values)
    if values.dtype.kind == "f":
        is_mask = len(found) == 2 and found[0] == 0 and found[1] > 1 + HAIR
        return _check(values > 0 if is_mask else values, path, shape)
    return _check(_scale(values, found, path), path, shape)


def _scale(values: np.ndarray, found: np.ndarray, path: Path) -> np.ndarray:
    """Integers as a mask or a map in [0, 1]; `found` are their different values."""
    white = 255 if values.dtype == np.uint8 else 65535
    if found[-1] == 0 or (len(found) == 2 and found[0] == 0):
        return values > 0
    if len(found) == 1 and found[0] in (1, white):
        return np.ones(values.shape, bool)
    if values.dtype in (np.uint8, np.uint16) and len(found) > 2:
        if len(found) <= MOST_LABELS:
            require_two_labels(values.astype(np.float64), path)
        if len(found) > MOST_LABELS or found[-1] == white:
            return values / np.float32(white)
    listed = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
    raise InputError(
        f"{path} has the values {listed} and it isn't clear which of them are lung: save a mask with 0 "
        "and 255, or probabilities"
    )


def _read_picture(path: Path) -> np.ndarray:
    raster = read_raster(path)
    plain = raster.indices is None and raster.alpha is None and not raster.white_is_zero
    if plain and not raster.colourful:
        return raster.values
    if len(np.unique(raster.values)) > 2:
        raise InputError(f"{path} is neither a mask of two values nor a grey map: save it as 8-bit grey PNG")
    return read_mask(path)


def _read_array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no readable NPY array ({error}): save it with numpy.save") from error
    if values.dtype.kind not in "buif" or values.size == 0:
        raise InputError(f"{path} holds {values.dtype} and no numbers: save booleans or probabilities")
    return values.astype(np.float32) if values.dtype.kind == "f" else values


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
