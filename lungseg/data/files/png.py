"""The chunks of a PNG: what they say of its pixels, and whether these are whole. Pillow looks at neither."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

XMP, EXIF_TEXT = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"  # keywords of texts
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type
_LONGEST_CHUNK = 2**24  # bytes; a longer one is none of those that say something of the pixels
_LONGEST_PIXELS = 2**30


def read_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks that say something of the pixels, by their type or keyword.

    Only an sBIT before the pixels counts. Texts are those of XMP and of EXIF, the latter as its bytes.
    """
    file.seek(8)  # the signature has been checked
    behind_pixels = False
    while len(head := file.read(8)) == 8:
        length, chunk_type = struct.unpack(">I4s", head)
        behind_pixels |= chunk_type == b"IDAT"
        wanted = chunk_type in (b"IHDR", b"eXIf") or (chunk_type == b"sBIT" and not behind_pixels)
        if length < _LONGEST_CHUNK and (wanted or chunk_type in (b"tEXt", b"zTXt", b"iTXt")):
            body = file.read(length)
            if wanted:
                yield chunk_type, body
            elif body.startswith(XMP):
                yield XMP, body
            elif body.startswith(EXIF_TEXT):
                yield EXIF_TEXT, _unpack_exif_text(chunk_type, body.removeprefix(EXIF_TEXT))
            file.seek(4, 1)  # the checksum
        else:
            file.seek(length + 4, 1)


def _unpack_exif_text(chunk_type: bytes, body: bytes) -> bytes:
    """The EXIF block that ImageMagick writes as hexadecimal text behind three lines; empty if it is none."""
    with suppress(ValueError, zlib.error):
        if chunk_type == b"zTXt":
            body = zlib.decompressobj().decompress(body[1:], _LONGEST_CHUNK)
        elif chunk_type == b"iTXt":
            body = body[body.rindex(b"\0") + 1 :]
        return bytes.fromhex("".join(body.decode("latin-1").split("\n")[3:]))
    return b""


def require_whole_pixels(file: BinaryIO, size: tuple[int, int], interlaced: bool) -> None:
    """Compare the pixels of a PNG with their checksums, and their number with its (width, height).

    Raises ValueError where they don't fit, and zlib.error where they can't be unpacked.
    """
    file.seek(8)
    unpacker, length, needed = zlib.decompressobj(), 0, 0
    while len(head := file.read(8)) == 8:
        size_of_chunk, chunk_type = struct.unpack(">I4s", head)
        if chunk_type in (b"IHDR", b"IDAT") and size_of_chunk < _LONGEST_PIXELS:
            body = file.read(size_of_chunk)
            if zlib.crc32(body, zlib.crc32(chunk_type)) != int.from_bytes(file.read(4)):
                raise ValueError("its pixels are not those of its checksum")
            if chunk_type == b"IHDR":
                samples = _SAMPLES.get(body[9], 1)
                needed = size[1] * (1 + (size[0] * samples * body[8] + 7) // 8)
            while chunk_type == b"IDAT" and body and length < needed and not unpacker.eof:
                length += len(unpacker.decompress(body, 2**24))  # in blocks: a bomb would fill the memory
                body = unpacker.unconsumed_tail
        else:
            file.seek(size_of_chunk + 4, 1)
    if not interlaced and length < needed:
        raise ValueError(f"its pixels end after {length} of {needed} bytes")
