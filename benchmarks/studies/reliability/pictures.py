"""Small sound pictures and masks in every format and mode that is read, made from phantoms."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lungseg.data.datasets.phantom import render

SHAPES = ((48, 48), (96, 64), (64, 96), (50, 75))  # of pictures cut out of a phantom
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 274  # the EXIF tag
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
# How a grey picture is stored: its format, Pillow's mode, and what is given to Pillow's `save`.
PLAIN = [
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("PNG", "L", {"exif": 6}),
    ("PNG", "RGB", {"exif": 3}),
    ("PNG", "P", {"transparency": 0}),
    *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "L", {"exif": 5}),
    ("JPEG", "RGB", {"exif": 8, "progressive": True}),
    ("JPEG", "L", {"xmp": XMP}),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "I", "F")),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "L", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "L", {"compression": "jpeg"}),
    ("TIFF", "L", {"compression": "packbits", "exif": 6}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
]


@dataclass(frozen=True)
class Original:
    """A sound file, and whether it is a mask."""

    format: str
    data: bytes
    is_mask: bool


def make_originals(seed: int) -> list[Original]:
    """Make the files that are damaged; a seed makes the same bytes each time."""
    return list(_make(seed))


def _make(seed: int) -> Iterator[Original]:
    for index, (name, mode, options) in enumerate(PLAIN):
        shape = SHAPES[index % len(SHAPES)]
        for is_mask, unit in enumerate(_cut(seed, index, shape)):
            yield Original(name, _save(unit, name, mode, options), bool(is_mask))
    for index, shape in enumerate(SHAPES):
        image, mask = _cut(seed, 100 + index, shape)
        yield Original("PNG", make_deep_png(image, colours=1 + 2 * (index % 2)), False)
        yield Original("TIFF", make_packed_tiff(image), False)
        yield Original("PNG", make_deep_png(mask, colours=1), True)


def _cut(seed: int, index: int, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A phantom's picture and mask, float64 in [0, 1], cut to a shape."""
    image, mask = render(seed, index, max(shape))
    return tuple(side[: shape[0], : shape[1]].astype(np.float64) for side in (image, mask))


def _save(unit: np.ndarray, name: str, mode: str, options: dict) -> bytes:
    options = dict(options)
    if "exif" in options:
        exif = Image.Exif()
        exif[ORIENTATION] = options["exif"]
        options["exif"] = exif
    buffer = io.BytesIO()
    _convert(unit, mode).save(buffer, name, **options)
    return buffer.getvalue()


def _convert(unit: np.ndarray, mode: str) -> Image.Image:
    if mode in ("I;16", "I;16B"):
        return Image.fromarray(np.round(unit * 4095).astype(">u2" if mode.endswith("B") else "<u2"))
    if mode == "I":
        return Image.fromarray(np.round(unit * 100_000).astype(np.int32))
    if mode == "F":
        return Image.fromarray(unit.astype(np.float32))
    grey = Image.fromarray(np.round(unit * 255).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        grey.putalpha(Image.fromarray(np.round(255 - 40 * unit).astype(np.uint8)))
    return grey.convert(mode)


def make_deep_png(unit: np.ndarray, colours: int) -> bytes:
    """Make a PNG of 16 bits a sample, with chunks that say something of the pixels."""
    height, width = unit.shape
    rows = np.repeat(np.round(unit * 65535).astype(">u2")[..., None], colours, axis=2)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if colours == 1 else 2, 0, 0, 0)
    exif = Image.Exif()
    exif[ORIENTATION] = 2
    chunks = {
        b"IHDR": header,
        b"sBIT": b"\x0c" * colours,
        b"eXIf": exif.tobytes().removeprefix(b"Exif\0\0"),
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP,
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    return PNG_SIGNATURE + b"".join(make_chunk(kind, body) for kind, body in chunks.items())


def make_chunk(kind: bytes, body: bytes) -> bytes:
    """Make a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def make_packed_tiff(unit: np.ndarray) -> bytes:
    """Make a TIFF of 12 bits a sample, two samples in three bytes."""
    height, width = unit.shape
    values = np.round(unit * 4095).astype(int)
    values = np.pad(values, ((0, 0), (0, width % 2)))  # a row begins at a whole byte
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)
    data = packed.tobytes()
    tags = ((256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (279, len(data))))
    body = data + b"\0" * (len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", 9) + entries + b"\0" * 4
