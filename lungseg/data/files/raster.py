"""Decode image files to pixels as they are stored, and refuse files that can't be an X-ray.

The plugin classes of Pillow are called directly, by the file's first bytes. `Image.open` would warn about a
decompression bomb, or try fifty other formats, before this module could refuse a file with its own message.
"""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from lungseg.data.files import png
from lungseg.system.errors import InputError

SMALLEST_SIDE = 16  # pixels; a smaller picture shows no lung
COLOUR_SPREAD, COLOUR_SHARE = 32, 0.05  # of the three channels of a pixel, from 0 to 255; and of the pixels
LARGEST_AREA = 64_000_000  # pixels; the largest detectors have about 18 million

# Files that Pillow and libtiff complain about on the terminal are refused by a sentence, or are fine.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FORMATS: dict[bytes, tuple[str, type[ImageFile]]] = {
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImageFile),
    b"\xff\xd8\xff": ("JPEG", JpegImageFile),
    b"II*\x00": ("TIFF", TiffImageFile),
    b"MM\x00*": ("TIFF", TiffImageFile),
    b"II+\x00": ("TIFF", TiffImageFile),  # BigTIFF
    b"MM\x00+": ("TIFF", TiffImageFile),
    b"BM": ("BMP", BmpImageFile),
    b"GIF8": ("GIF", GifImageFile),
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_TIFF_LENGTH, _TIFF_STRIPS, _TIFF_SAMPLES, _TIFF_ROWS_PER_STRIP, _TIFF_PLANAR = 257, 273, 277, 278, 284
_EXIF_ORIENTATION = 274
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_TURNS = {  # what brings a picture of an EXIF orientation upright; 1 is upright
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _silence_libtiff() -> None:
    """Keep the libtiff that Pillow brings from printing; other builds of Pillow may go on printing."""
    folder = Path(Image.__file__).parent
    for file in (*(folder.parent / "pillow.libs").glob("libtiff*"), *(folder / ".dylibs").glob("libtiff*")):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(file))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


_silence_libtiff()


_WHOLE: set[tuple] = set()  # PNG files that were found to be whole, as they are now


@dataclass(frozen=True)
class Raster:
    """A decoded picture, upright (EXIF orientation applied).

    Attributes:
        values: H x W, one sample a pixel: uint8 (colour becomes luminance, ITU-R 601), uint16, int32, uint32
            or float32, as stored.
        alpha: H x W uint8, 255 is opaque; None if the file has no transparency.
        indices: H x W uint8, the palette index of each pixel; None if the file has no palette.
        palette: 256 x 3 uint8, the colours of the indices, black past the palette's end; None without one.
        bits: significant bits of a sample where the file states them (8 for uint8), else None.
        white_is_zero: `values` run from white to black and must still be inverted.
        colourful: at least a twentieth of the pixels are clearly coloured, as in a photograph.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    indices: np.ndarray | None = None
    palette: np.ndarray | None = None
    bits: int | None = None
    white_is_zero: bool = False
    colourful: bool = False


def read_raster(path: Path) -> Raster:
    """Decode a PNG, JPEG, TIFF, BMP or GIF file of any mode.

    Raises InputError if the file is missing, empty, no image, truncated, of several frames, smaller than 16
    pixels a side or larger than 64 megapixels. Sizes are checked before anything is decoded.
    """
    with _opened(path) as (image, file):
        try:
            stated = _read_statements(image, file)
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(
                    f"{path} holds {image.n_frames} frames: save the one to be used as a file of its own"
                )
            _require_whole(image, file)
            image.load()
            return _raster(path, image, stated)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # Pillow raises a dozen different types for damaged files
            raise InputError(
                f"{path} is truncated or damaged ({error}): copy it again or remove it"
            ) from error


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of the upright picture from the file's header. Raises as `read_raster`."""
    with _opened(path) as (image, file):
        width, height = image.size
        turned = _read_orientation(path, image, file) in _QUARTER_TURNS
        return (width, height) if turned else (height, width)


def read_orientation(path: Path) -> int:
    """Return the EXIF orientation, 1 to 8, that `read_raster` applies; 1 for TIFF. Raises as that does."""
    with _opened(path) as (image, file):
        return _read_orientation(path, image, file)


def _read_orientation(path: Path, image: ImageFile, file: BinaryIO) -> int:
    try:
        return _read_statements(image, file).orientation
    except Exception as error:  # as in read_raster
        raise InputError(f"{path} is truncated or damaged ({error}): copy it again or remove it") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFile, BinaryIO]]:
    """The picture behind a file's header, not decoded yet, and the open file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path} doesn't exist: check the path") from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
    with file:
        image = _header(path, file)
        require_picture_size(path, *image.size)
        yield image, file


def require_picture_size(path: Path, width: int, height: int) -> None:
    """Raise InputError if a picture is smaller than 16 pixels a side or larger than 64 megapixels."""
    if min(width, height) < SMALLEST_SIDE:
        raise InputError(
            f"{path} is {width} x {height} pixels, too small for an X-ray: "
            f"remove it or give one of at least {SMALLEST_SIDE} pixels a side"
        )
    if width * height > LARGEST_AREA:
        raise InputError(
            f"{path} claims {width} x {height} pixels, more than the {LARGEST_AREA // 10**6} megapixels "
            "that are read: shrink it first"
        )


def _header(path: Path, file: BinaryIO) -> ImageFile:
    start = file.read(132)
    if not start:
        raise InputError(f"{path} is empty (0 bytes): copy it again or remove it")
    known = _find_format(start)
    if known is None and start[128:] == b"DICM":
        raise InputError(f"{path} is a DICOM file, and masks are PNG, JPEG, TIFF, BMP or GIF: convert it")
    if known is None:
        raise InputError(f"{path} is no PNG, JPEG, TIFF, BMP or GIF image: convert or remove it")
    name, plugin = known
    file.seek(0)
    try:
        return plugin(file, path.name)
    except Exception as error:  # as in read_raster
        raise InputError(
            f"{path} is no readable {name} image ({error}): convert it or copy it again"
        ) from error


def has_known_start(start: bytes) -> bool:
    """Return whether a file with these first bytes is PNG, JPEG, TIFF, BMP or GIF."""
    return _find_format(start) is not None


def _find_format(start: bytes) -> tuple[str, type[ImageFile]] | None:
    return next((entry for magic, entry in _FORMATS.items() if start.startswith(magic)), None)


def _require_whole(image: ImageFile, file: BinaryIO) -> None:
    """Raise ValueError if the pixels can't be what was written; Pillow would fill the gaps in silence."""
    if isinstance(image, PngImageFile):
        found = os.fstat(file.fileno())
        state = file.name, found.st_size, found.st_mtime_ns, found.st_ino
        if state not in _WHOLE:  # once a file: it unpacks the pixels a second time
            position = file.tell()
            png.require_whole_pixels(file, image.size, interlaced=bool(image.info.get("interlace")))
            file.seek(position)
            _WHOLE.add(state)
    elif isinstance(image, TiffImageFile) and (strips := image.tag_v2.get(_TIFF_STRIPS)):
        rows = len(strips) * image.tag_v2.get(_TIFF_ROWS_PER_STRIP, 2**32)
        planes = image.tag_v2.get(_TIFF_SAMPLES, 1) if image.tag_v2.get(_TIFF_PLANAR) == 2 else 1
        if rows < image.tag_v2[_TIFF_LENGTH] * planes:
            raise ValueError(f"its strips hold {rows} of {image.tag_v2[_TIFF_LENGTH]} rows")


@dataclass(frozen=True)
class _Statements:
    """What a file says of its pixels: how they are turned (EXIF, 1 to 8), and a sample's bits or None."""

    orientation: int
    bits: int | None


def _read_statements(image: ImageFile, file: BinaryIO) -> _Statements:
    """Read what is not in the pixels, without decoding these; the file's position stays.

    The orientation is EXIF's, also where a PNG has it behind its pixels, else that of XMP.
    """
    if isinstance(image, TiffImageFile):  # whose size is upright already, and Pillow turns it when it loads
        return _Statements(1, max(image.tag_v2.get(_TIFF_BITS, (1,))) or None)
    if isinstance(image, PngImageFile):
        position = file.tell()
        chunks = dict(png.read_chunks(file))
        file.seek(position)
        exif, xmp = chunks.get(b"eXIf") or chunks.get(png.EXIF_TEXT), chunks.get(png.XMP, b"")
        depth, stated = chunks[b"IHDR"][8], chunks.get(b"sBIT", b"")[:1]
        # An sBIT of 0 says that no bit means anything: then the depth is the better guess.
        return _Statements(_find_orientation(exif, xmp), min(stated[0], depth) if stated > b"\0" else depth)
    return _Statements(_find_orientation(image.info.get("exif"), image.info.get("xmp", b"")), None)


def _find_orientation(exif: bytes | None, xmp: bytes) -> int:
    found = None
    if exif:
        block = Image.Exif()
        with suppress(Exception):  # a malformed block says nothing; Pillow raises errors of many kinds for it
            block.load(exif)
            found = block.get(_EXIF_ORIENTATION)
    if found is None and (stated := re.search(rb"tiff:Orientation(?:=\"|>)([0-9])", xmp)):
        found = int(stated[1])
    return found if found in _TURNS else 1


def _raster(path: Path, image: ImageFile, stated: _Statements) -> Raster:
    """Make the raster of a loaded picture."""
    bits = stated.bits
    tiff = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    # Pillow inverts white-is-zero pictures of up to 8 bits by itself, but none with more.
    white_is_zero = tiff.get(_TIFF_PHOTOMETRIC) == 0
    unsigned = bool(tiff) and max(tiff.get(_TIFF_SAMPLE_FORMAT, (1,))) == 1
    turn = _TURNS.get(stated.orientation)
    upright = image if turn is None else image.transpose(turn)

    if upright.mode.startswith("I;16"):
        values = np.asarray(upright).astype(np.uint16)
        return Raster(values, bits=bits, white_is_zero=white_is_zero)
    if upright.mode == "I":
        values = np.asarray(upright)
        wrapped = unsigned and bits == 32  # Pillow has no unsigned mode: large values come out negative
        return Raster(values.view(np.uint32) if wrapped else values, white_is_zero=white_is_zero)
    if upright.mode == "F":
        return Raster(np.asarray(upright), white_is_zero=white_is_zero)
    raster = _eight_bits(upright)
    if (bits or 8) > 8 and raster.values.max() < 64:
        # Pillow keeps the upper 8 of 16 bits of a colour: fewer than 6 of them would be left.
        raise InputError(
            f"{path} is 16-bit colour of which the upper bits are unused: save it as 16-bit grey"
        )
    return raster


def _eight_bits(image: Image.Image) -> Raster:
    """Modes of up to 8 bits a sample: 1, L, LA, P, PA, RGB, RGBA, CMYK, YCbCr and their kin."""
    indices = palette = alpha = None
    if image.mode == "P":
        indices = np.asarray(image)
        used = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)[:256]
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: len(used)] = used
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    colourful = False
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
        colourful = is_colourful(image)
    return Raster(np.asarray(image.convert("L")), alpha, indices, palette, bits=8, colourful=colourful)


def is_colourful(image: Image.Image) -> bool:
    """Return whether at least a twentieth of an RGB picture's pixels are clearly coloured."""
    colours = np.asarray(image.resize((128, 128), Image.Resampling.BOX))
    return bool(np.mean(np.ptp(colours.astype(np.int16), axis=2) > COLOUR_SPREAD) >= COLOUR_SHARE)
