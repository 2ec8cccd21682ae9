"""Read image files as float32 in [0, 1], and mask files as bool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, label, maximum_filter, minimum_filter

from lungseg.data.files.dicom import is_dicom, read_header
from lungseg.data.files.dicom_pixels import read_dicom
from lungseg.data.files.film import film_size, is_film, read_film
from lungseg.data.files.grey import to_unit
from lungseg.data.files.raster import Raster, read_raster, read_size
from lungseg.system.errors import InputError

_LABEL_AREA = 0.01  # a value with at least this share of a map is a label
_SMALL_LABEL_AREA = 0.0005  # likewise of a mask with few values, where a small lung may be one
_MOST_INDEX = 32  # whole numbers below it count something, and are no brightness
_LABEL_GAP = 0.05  # values closer than this share of the range may be one label with noise
_MOST_LABELS = 32  # a mask with more values is soft or compressed, and no label map
_MOST_BETWEEN = 1 / 3  # with a larger share of pixels between the extremes a file is no mask


class SizeMismatch(InputError):
    """A mask has another size than its image."""


def read_image(path: Path) -> np.ndarray:
    """Read a radiograph from a PNG, JPEG, TIFF, BMP or GIF file of any mode, DICOM, or a film of JSRT.

    DICOM is shown as `read_dicom` says, a film as `read_film`. Of the others colour becomes luminance
    (ITU-R 601). Transparent pixels are black, as air is. White-is-zero TIFFs are inverted. The value that
    becomes 1.0 is:
    - 8 bits and fewer: 255 (the format's white).
    - 16 bits: 2^b - 1, where b is what TIFF BitsPerSample or PNG sBIT states if that is under 16 (but 16 if
      the maximum is above 2^b - 1: PNG wants such samples scaled up); else the smallest of 8, 10, 12, 14 and
      16 bits that holds the image's maximum.
    - 32-bit integers: likewise, with 24 and 32 bits too. With negative values the zero is arbitrary, so the
      image's own minimum becomes 0 and its maximum 1.
    - floating point: unchanged if within [0, 1]; else as 32-bit integers.

    Returns:
        float32, H x W, in [0, 1], upright.

    Raises:
        InputError: as `read_raster`, `read_dicom` or `read_film`, and for values that are not finite.
    """
    return read_image_and_colour(path)[0]


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of what `read_image` gives, from the file's header. Raises as that does."""
    if is_dicom(path):
        return read_header(path).size
    return film_size() if is_film(path) else read_size(path)


def read_image_and_colour(path: Path) -> tuple[np.ndarray, bool]:
    """Return what `read_image` does, and whether the file is colourful, as a photograph is."""
    path = Path(path)
    if is_dicom(path):
        return read_dicom(path)
    if is_film(path):
        return read_film(path), False
    raster = read_raster(path)
    _require_finite(raster.values, path)
    image = to_unit(raster.values, raster.bits)
    if raster.white_is_zero:
        image = 1 - image
    if raster.alpha is not None:
        image = image * (raster.alpha / np.float32(255))
    return np.ascontiguousarray(image, dtype=np.float32), raster.colourful


def read_mask(path: Path, shape: tuple[int, int] | None = None, image: Path | None = None) -> np.ndarray:
    """Read a lung mask of any mode: pixels above half of the file's own range are lung.

    A constant mask is empty if it is 0, else all lung. The value of a pixel is its brightness, with these
    exceptions:
    - In a palette with colours (a label map) the index counts. But a palette of greys, or of black and one
      colour, is a picture whose brightness counts.
    - Where all pixels have one colour and the transparency varies, the opacity is the mask. Other
      transparent pixels are black.

    A mask may be anti-aliased, blurred or JPEG-compressed, but must have two labels. A label is a value that
    fills at least 1 % of the image with flat areas (3 x 3 neighbourhoods of that value alone; a soft edge has
    none). Smaller ones count too, for a collapsed lung is small. In a file of up to 32 values that is an area
    of 0.05 % or more that isn't a step between darker and brighter ones, and whose value isn't within 5 % of
    the range of the smallest or largest one. If all values are below 32, it is any flat area. The smallest
    and the largest value are labels too, unless they are within 5 % of the range of another label. In a file
    of more than 32 values, flat values within 5 % of these two are no labels of their own.

    Args:
        path: the mask's file.
        shape: (H, W) that it must have, or None.
        image: the image's file, for the message if the sizes differ.

    Returns:
        bool, H x W, upright.

    Raises:
        InputError: as `read_raster`; three labels or more; a picture (over a third of the pixels are between
            10 and 90 % of the range and not flat); SizeMismatch if the size isn't `shape`.
    """
    path = Path(path)
    values = _mask_values(read_raster(path), path)
    require_size(values, shape, path, image)
    return _binary(values, path)


def require_size(values: np.ndarray, shape: tuple[int, int] | None, path: Path, image: Path | None) -> None:
    """Raise SizeMismatch if a mask has another (H, W) than `shape`, unless that is None."""
    if shape is not None and values.shape != tuple(shape):
        other = f"its image {image}" if image else "its image"
        raise SizeMismatch(
            f"{path} is {values.shape[1]} x {values.shape[0]} pixels but {other} is {shape[1]} x {shape[0]}: "
            "give a mask of the image's size"
        )


def _require_finite(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"{path} has values that are not finite (NaN or infinity): replace them with numbers"
        )


def _mask_values(raster: Raster, path: Path) -> np.ndarray:
    """The values to divide at half their range into lung and the rest: float64, H x W."""
    _require_finite(raster.values, path)
    if raster.indices is not None and _is_label_map(raster):
        return raster.indices.astype(np.float64)
    values = raster.values.astype(np.float64)
    if raster.white_is_zero:
        values = (1.0 if raster.values.dtype.kind == "f" else 65535.0) - values
    if raster.alpha is None:
        return values
    if np.ptp(values) == 0 and np.ptp(raster.alpha) > 0:
        return raster.alpha.astype(np.float64)
    return values * (raster.alpha / 255)


def _is_label_map(raster: Raster) -> bool:
    """Whether the palette's index counts, and not the brightness of its colours."""
    used = np.unique(raster.indices)
    colours = np.unique(raster.palette[used], axis=0)
    if len(used) > 1 and len(colours) == 1:
        return True  # the indices differ but look the same
    grey = bool((colours == colours[:, :1]).all())
    black_and_one = len(colours) == 2 and not colours[0].any()
    return not (grey or black_and_one)


def _binary(values: np.ndarray, path: Path) -> np.ndarray:
    low, high = values.min(), values.max()
    if low == high:
        return np.full(values.shape, bool(high))
    if not ((values == low) | (values == high)).all():
        require_two_labels(values, path, _SMALL_LABEL_AREA)
    return values > (low + high) / 2


def require_two_labels(values: np.ndarray, path: Path, least: float = _LABEL_AREA) -> None:
    """Require that values, float64 H x W, are a mask by the rule of `read_mask`. Raises InputError if not.

    `least` is the share of the image that a label must fill where there are few values. Below 1 %, values
    under 32 are labels whatever they fill.
    """
    low, high = values.min(), values.max()
    flat = minimum_filter(values, 3) == maximum_filter(values, 3)
    margin = 0.1 * (high - low)
    between = np.mean((values > low + margin) & (values < high - margin) & ~flat)
    if between > _MOST_BETWEEN:
        raise InputError(
            f"{path} looks like a picture, not a mask ({between:.0%} of its pixels are neither dark "
            "nor bright): check that images and masks aren't swapped"
        )
    labels = _labels(values, flat, least)
    if len(labels) > 2:
        shown = ", ".join(f"{value:g}" for value in labels[:6]) + (", ..." if len(labels) > 6 else "")
        raise InputError(
            f"{path} has {len(labels)} labels ({shown}) and it isn't clear which of them are lung: "
            "save it with two values, 0 and 255, or name them in lung_labels of the dataset"
        )


def _labels(values: np.ndarray, flat: np.ndarray, least: float) -> list[float]:
    """The values that are labels by the rule of `read_mask`, ascending.

    `flat` is True where a pixel's 3 x 3 neighbourhood has one value.
    """
    low, high = float(values.min()), float(values.max())
    near = _LABEL_GAP * (high - low)
    found, counts = np.unique(values[flat], return_counts=True)
    large = counts >= _LABEL_AREA * values.size
    apart = (found > low + near) & (found < high - near)
    everything = np.unique(values)
    if len(everything) > _MOST_LABELS:
        chosen = large & apart
    elif least < _LABEL_AREA and high < _MOST_INDEX and (everything == everything.round()).all():
        chosen = np.ones_like(large)
    else:
        chosen = large | apart & [
            count >= least * values.size and _lies_apart(values, value, least * values.size)
            for value, count in zip(found, counts, strict=True)
        ]
    labels = found[chosen].tolist()
    for extreme in (low, high):
        if all(abs(extreme - other) > near for other in labels):
            labels.append(extreme)
    return sorted(labels)


def _lies_apart(values: np.ndarray, value: float, least: float) -> bool:
    """Whether a value has an area of `least` pixels that is no step between darker and brighter ones."""
    areas, _ = label(values == value)
    for number in np.flatnonzero(np.bincount(areas.ravel()) >= least):
        area = areas == number
        around = values[binary_dilation(area) & ~area]
        if number and (around.max() < value or around.min() > value):
            return True
    return False
