"""Decode a DICOM file's pixels and show them as the file says: inverted, rescaled, through a window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lungseg.data.files.dicom import DicomHeader, explain_missing_pixels, make_header, read_tags, say_damaged
from lungseg.data.files.grey import apply_window, signed_to_unit, to_unit
from lungseg.data.files.raster import is_colourful
from lungseg.system.errors import InputError

if TYPE_CHECKING:
    from pydicom import FileDataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_JPEG_2000 = "1.2.840.10008.1.2.4.9"  # so the identifiers of JPEG 2000's syntaxes begin
_HIGH_THROUGHPUT = "1.2.840.10008.1.2.4.20"  # likewise of high-throughput JPEG 2000


def read_dicom(path: Path) -> tuple[np.ndarray, bool]:
    """Read a radiograph, shown as its file says, and whether it is colourful.

    MONOCHROME1 is turned over, so that white is dense. A VOI LUT (the first) counts, else a window (the
    first), after the modality's rescaling. Without either, unsigned samples are scaled as `read_image` scales
    those of a file with BitsStored bits, and signed ones as `signed_to_unit`. Padding is black. Colour
    becomes luminance (ITU-R 601).

    Returns:
        float32, H x W, in [0, 1]; and the flag.

    Raises:
        InputError: as `read_header`; the file is truncated, encrypted or compressed in a way that isn't read;
            a window has no width or shows nothing.
    """
    dataset = read_tags(path, with_pixels=True)
    header = make_header(dataset, path)
    values = _decode(dataset, path)
    if values.shape[:2] != header.size or values.ndim > 3:
        raise InputError(f"{path} has pixels of another size than its tags say: export it again")
    if values.ndim == 3 and values.dtype == np.uint8 and values.shape[2] == 3:
        picture = Image.fromarray(values)
        return np.asarray(picture.convert("L"), np.float32) / 255, is_colourful(picture)
    if values.ndim == 3 or header.photometric not in _GREY:
        raise InputError(f"{path} is a picture in colours that aren't read: export it as grey (MONOCHROME2)")
    padded = _find_padding(values, header)
    if padded.any() and not padded.all():  # else it would widen the range of what is shown
        values = np.where(padded, values[~padded].min(), values)
    try:
        image = _show(values, dataset, header, path)
    except (InputError, MemoryError):
        raise
    except Exception:  # of a table that can't be read; its text may hold a person's name
        raise InputError(f"{path} has a look-up table that can't be read: correct or remove it") from None
    if header.photometric == "MONOCHROME1":
        image = 1 - image
    image[padded] = 0
    return image, False


def _decode(dataset: FileDataset, path: Path) -> np.ndarray:
    """The stored pixels, decompressed."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise explain_missing_pixels(dataset, path)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        missing = not get_decoder(syntax).is_available
    except Exception:  # it raises a few types for what it doesn't know
        shown = getattr(syntax, "name", None) or "no transfer syntax"
        raise InputError(f"{path} is stored as {shown}, which isn't read: export it uncompressed") from None
    if missing:
        raise InputError(
            f"{path} is compressed as {syntax.name}, which needs a further package: "
            f"pip install pylibjpeg {_name_codec(syntax)}"
        )
    try:
        return dataset.pixel_array
    except MemoryError:
        raise
    except Exception:  # decoders raise a dozen types
        raise say_damaged(path) from None


def _name_codec(syntax: str) -> str:
    """The package that decodes a transfer syntax."""
    return "pylibjpeg-openjpeg" if syntax.startswith((_JPEG_2000, _HIGH_THROUGHPUT)) else "pylibjpeg-libjpeg"


def _show(values: np.ndarray, dataset: FileDataset, header: DicomHeader, path: Path) -> np.ndarray:
    """Stored values as the file says they are shown: float32 in [0, 1]; high values are light."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    if dataset.get("VOILUTSequence"):
        shown = apply_voi(apply_modality_lut(values, dataset), dataset)
        return to_unit(shown, _count_bits(dataset.VOILUTSequence[0]))
    if header.window is not None:
        return _show_window(values, apply_modality_lut(values, dataset), header, path)
    if dataset.get("ModalityLUTSequence"):
        return to_unit(apply_modality_lut(values, dataset), _count_bits(dataset.ModalityLUTSequence[0]))
    # A rescaling keeps the order of the values, unless it turns them over.
    image = signed_to_unit(values) if values.dtype.kind == "i" else to_unit(values, header.bits)
    return 1 - image if header.slope < 0 else image


def _show_window(stored: np.ndarray, rescaled: np.ndarray, header: DicomHeader, path: Path) -> np.ndarray:
    """The first window on rescaled values. Raises InputError if it has no width or shows nothing."""
    centre, width = header.window
    least = 1 if header.function == "LINEAR" else np.finfo(float).tiny
    sound = least <= width < np.inf and abs(centre) < np.inf
    shown = apply_window(rescaled, centre, width, header.function) if sound else np.zeros(1)
    if shown.min() == shown.max() and not (sound and stored.min() == stored.max()):
        raise InputError(
            f"{path} has a window of width {width:g} around {centre:g}, which shows nothing: correct the "
            "tags WindowCenter and WindowWidth, or remove them"
        )
    return shown


def _count_bits(table: Any) -> int:
    """The bits of what a look-up table gives."""
    return int(table.LUTDescriptor[2])


def _find_padding(values: np.ndarray, header: DicomHeader) -> np.ndarray:
    """Where a picture was filled up: bool, H x W."""
    if header.padding is None:
        return np.zeros(values.shape, bool)
    low, high = header.padding
    return (values >= low) & (values <= high)
