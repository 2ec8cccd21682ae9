"""Files written byte by byte, where a library would not write what a test needs, and a small real layout."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_png():
    """Writes a PNG from raw rows: any bit depth, colour type, claimed size and further chunks."""

    def write(path, width, height, depth, colour, rows=b"", chunks=()):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        stride = len(rows) // height if rows else 0
        lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height)) if rows else b""
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        parts = [
            chunk(b"IHDR", header),
            *(chunk(*one) for one in chunks),
            chunk(b"IDAT", zlib.compress(lines)),
            chunk(b"IEND", b""),
        ]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        return path

    return write


@pytest.fixture
def write_tiff():
    """Writes a plain TIFF of one sample a pixel: any byte order, bits, photometric and sample format."""

    def write(path, data, width, height, bits, photometric=1, sample_format=1, order="<", orientation=1):
        tags = [
            (256, 4, width),
            (257, 4, height),
            (258, 3, bits),
            (259, 3, 1),
            (262, 3, photometric),
            (273, 4, 8),
            (274, 3, orientation),
            (277, 3, 1),
            (278, 4, height),
            (279, 4, len(data)),
            (339, 3, sample_format),
        ]
        body = data + b"\0" * (len(data) % 2)
        entries = b"".join(
            struct.pack(f"{order}HHI", tag, kind, 1)
            + (struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0))
            for tag, kind, value in tags
        )
        magic = b"II*\0" if order == "<" else b"MM\0*"
        directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
        path.write_bytes(magic + struct.pack(f"{order}I", 8 + len(body)) + body + directory)
        return path

    return write


@pytest.fixture
def save_pair():
    """Saves a small image (a grey ramp) and a mask (a box of 255), and returns both paths."""

    def save(image: Path, mask: Path | None, size=(24, 20)):
        image.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        ramp = np.arange(width * height).reshape(height, width) * 255 // (width * height - 1)
        Image.fromarray(ramp.astype(np.uint8)).save(image)
        if mask is not None:
            mask.parent.mkdir(parents=True, exist_ok=True)
            box = np.zeros((height, width), np.uint8)
            box[5:15, 4:10] = 255
            Image.fromarray(box).save(mask)
        return image, mask

    return save


@pytest.fixture
def make_cxr704(save_pair):
    """Makes the layout of the public set in a folder: five pairs, and one image without a mask."""

    def make(root: Path) -> Path:
        for name in ("MCUCXR_0001_0", "MCUCXR_0002_1"):
            save_pair(root / f"CXR_png/{name}.png", root / f"masks/{name}.png")
        for name, size in (
            ("CHNCXR_0001_0", (24, 20)),
            ("CHNCXR_0002_0", (30, 40)),
            ("CHNCXR_0003_1", (24, 20)),
        ):
            save_pair(root / f"CXR_png/{name}.png", root / f"masks/{name}_mask.png", size)
        save_pair(root / "CXR_png/CHNCXR_0025_0.png", None)
        return root

    return make
