"""Damages the bytes of picture files: at random places, and in the parts that their formats are made of."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.studies.reliability.pictures import ORIENTATION, PNG_SIGNATURE

ODD = (0, 1, 2, 3, 5, 7, 9, 15, 16, 17, 64, 255, 256, 257, 4097, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1,
       2**31, 2**32 - 1)  # fmt: skip
# Fields of headers, as (offset, bytes).
PNG_FIELDS = ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1))  # of the chunk IHDR
JPEG_FIELDS = ((2, 2), (4, 1), (5, 2), (7, 2), (9, 1), (10, 1), (11, 1), (12, 1))  # of a segment
TIFF_FIELDS = ((0, 2), (2, 2), (4, 4), (8, 4), (8, 2))  # of a directory's entry
BMP_FIELDS = ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4))
TIFF_ENTRY = 12  # bytes
BITS, STRIPS, ROWS_A_STRIP, PLANAR = 258, 273, 278, 284  # tags of a TIFF
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by a PNG's type of colour

Span = tuple[int, int]  # begin and end of a part
Damage = Callable[[bytes, str, np.random.Generator], bytes]


def find_parts(data: bytes, form: str) -> list[Span]:
    """Find the chunks of a PNG, segments of a JPEG, directory entries of a TIFF, header words of a BMP."""
    return {"PNG": _find_chunks, "JPEG": _find_segments, "TIFF": _find_entries, "BMP": _find_words}[form](
        data
    )


def _find_chunks(data: bytes) -> list[Span]:
    spans, at = [], len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        if end > len(data):
            break
        spans.append((at, end))
        at = end
    return spans


def _find_segments(data: bytes) -> list[Span]:
    """The last one holds the pixels."""
    spans, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        scan = data[at + 1] == 0xDA
        end = len(data) if scan else at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        spans.append((at, end))
        at = end
    return spans


def _find_entries(data: bytes) -> list[Span]:
    order = _find_order(data)
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    count = struct.unpack_from(f"{order}H", data, start)[0]
    return [(start + 2 + TIFF_ENTRY * index, start + 2 + TIFF_ENTRY * (index + 1)) for index in range(count)]


def _find_order(data: bytes) -> str:
    return ">" if data[:2] == b"MM" else "<"


def _find_words(data: bytes) -> list[Span]:
    return [(at, at + 4) for at in range(2, min(54, len(data) - 4), 4)]


def repair_checksums(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks fit, so that the damage inside them is met."""
    fixed = bytearray(data)
    for begin, end in _find_chunks(data):
        struct.pack_into(">I", fixed, end - 4, zlib.crc32(data[begin + 4 : end - 4]))
    return bytes(fixed)


def find_contradiction(data: bytes, form: str) -> str | None:
    """Say where a file shows by itself that its pixels aren't all there as they were; None if it doesn't.

    That is a PNG whose pixels have another checksum than is stored with them, or are fewer than its header
    says, and a TIFF whose strips don't reach its last row.
    """
    if form == "PNG":
        return _find_png_contradiction(data)
    return _find_tiff_contradiction(data) if form == "TIFF" else None


def _find_png_contradiction(data: bytes) -> str | None:
    chunks = [(data[begin + 4 : begin + 8], begin, end) for begin, end in _find_chunks(data)]
    own = [(begin, end) for name, begin, end in chunks if name == b"IDAT"]
    if any(zlib.crc32(data[a + 4 : b - 4]) != struct.unpack_from(">I", data, b - 4)[0] for a, b in own):
        return "a checksum of its pixels is wrong"
    headers = [begin for name, begin, _ in chunks if name == b"IHDR"]
    if not headers or chunks[-1][0] != b"IEND":  # other parts may be beyond its end
        return None
    width, height, depth, colour = struct.unpack_from(">IIBB", data, headers[-1] + 8)
    row = -(-width * depth * SAMPLES.get(colour, 1) // 8) + 1
    try:
        found = len(zlib.decompressobj().decompress(b"".join(data[a + 8 : b - 4] for a, b in own)))
    except zlib.error:
        return None
    return f"it has {found} bytes of pixels instead of {row * height}" if found < row * height else None


def _find_tiff_contradiction(data: bytes) -> str | None:
    with Image.open(io.BytesIO(data)) as image:
        tags, height = image.tag_v2, image.size[1]
    rows, strips = tags.get(ROWS_A_STRIP, 2**32 - 1), len(tags.get(STRIPS, (0,)))
    strips //= len(tags.get(BITS, (1,))) if tags.get(PLANAR, 1) == 2 else 1
    turned = tags.get(ORIENTATION, 1) > 4
    if STRIPS not in tags or turned or rows * strips >= height:
        return None
    return f"its {strips} strips of {rows} rows don't reach the last of its {height} rows"


def _maybe_repair(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    return repair_checksums(data) if form == "PNG" and rng.random() < 0.5 else data


def flip_bits(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Flip 1 to 16 bits; half of the time near the beginning, where the header is."""
    changed = bytearray(data)
    within = min(len(data), 200) if rng.random() < 0.5 else len(data)
    for at in rng.integers(0, within, rng.integers(1, 17)):
        changed[at] ^= 1 << int(rng.integers(8))
    return _maybe_repair(bytes(changed), form, rng)


def cut_tail(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Keep only the beginning."""
    return data[: int(rng.integers(0, len(data)))]


def zero_block(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Write zeros over up to a half of the file."""
    begin, length = int(rng.integers(0, len(data))), int(rng.integers(1, len(data) // 2))
    end = min(begin + length, len(data))
    return _maybe_repair(data[:begin] + bytes(end - begin) + data[end:], form, rng)


def swap_parts(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Exchange two parts of the format."""
    (a, b), (c, d) = sorted(_draw_two(find_parts(data, form), rng))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def double_part(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Repeat a part elsewhere; in tables of fixed length over another part."""
    (a, b), (c, d) = _draw_two(find_parts(data, form), rng)
    return data[:c] + data[a:b] + data[d if form in ("TIFF", "BMP") else c :]


def _draw_two(parts: list[Span], rng: np.random.Generator) -> tuple[Span, Span]:
    first, second = rng.choice(len(parts), 2, replace=False)
    return parts[first], parts[second]


def change_header(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Write one to three odd values, up to 2^32 - 1, into fields such as width, height, depth and lengths."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, length, order = _draw_field(data, form, rng)
        value = int(rng.choice(ODD)) if rng.random() < 0.8 else int(rng.integers(2**32))
        word = (value % 256**length).to_bytes(length, "little" if order == "<" else "big")
        changed[at : at + length] = word
    fixed = bytes(changed[: len(data)])
    return repair_checksums(fixed) if form == "PNG" and rng.random() < 0.9 else fixed


def _draw_field(data: bytes, form: str, rng: np.random.Generator) -> tuple[int, int, str]:
    """Offset and bytes of a field, and the order of these bytes."""
    if form == "BMP":
        return (*BMP_FIELDS[rng.integers(len(BMP_FIELDS))], "<")
    parts = find_parts(data, form)
    begin, end = parts[rng.integers(len(parts))]
    if form == "PNG" and rng.random() < 0.6:
        at, length = PNG_FIELDS[rng.integers(len(PNG_FIELDS))]
        return parts[0][0] + 8 + at, length, ">"
    if form == "PNG":  # a chunk's length, or a byte of what it says
        inside = int(rng.integers(begin + 8, max(end - 4, begin + 9)))
        return (begin, 4, ">") if rng.random() < 0.3 else (inside, 1, ">")
    fields = TIFF_FIELDS if form == "TIFF" else JPEG_FIELDS
    at, length = fields[rng.integers(len(fields))]
    return min(begin + at, len(data) - length), length, _find_order(data) if form == "TIFF" else ">"


def append_garbage(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Append random bytes, zeros, or the file itself once more."""
    length = int(rng.integers(1, 5000))
    return data + (rng.bytes(length), bytes(length), data)[rng.integers(3)]


def keep(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """Change nothing: the file has to be read."""
    return data


DAMAGES: dict[str, Damage] = {
    "untouched": keep,
    "bits flipped": flip_bits,
    "tail cut": cut_tail,
    "block of zeros": zero_block,
    "parts exchanged": swap_parts,
    "part doubled": double_part,
    "header field changed": change_header,
    "garbage appended": append_garbage,
}
