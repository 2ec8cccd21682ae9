"""Which way up a picture is: EXIF, EXIF behind the pixels, XMP, and blocks that are none of these."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.images import read_image
from lungseg.data.files.raster import read_orientation, read_size

EXIF_6 = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
XMP_6 = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def png_with(pixels, *chunks, behind=False):
    """A PNG with further chunks (type, body) before its pixels, or behind them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    more = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    place = data.index(b"IEND") - 4 if behind else data.index(b"IDAT") - 4
    return data[:place] + more + data[place:]


def jpeg_with(pixels, block):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100)
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def ramp():
    return np.tile(np.linspace(0, 255, 40).astype(np.uint8), (48, 1))


XMP_CHUNK = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_6)


@pytest.mark.parametrize(
    ("name", "data", "turned"),
    [
        ("exif.png", lambda: png_with(ramp(), (b"eXIf", EXIF_6)), True),
        ("behind.png", lambda: png_with(ramp(), (b"eXIf", EXIF_6), behind=True), True),
        ("xmp.png", lambda: png_with(ramp(), XMP_CHUNK), True),
        ("xmp-behind.png", lambda: png_with(ramp(), XMP_CHUNK, behind=True), True),
        ("garbage.png", lambda: png_with(ramp(), (b"eXIf", b"garbage")), False),
        ("other-text.png", lambda: png_with(ramp(), (b"iTXt", b"Comment\0\0\0\0\0" + XMP_6)), False),
        ("exif.jpg", lambda: jpeg_with(ramp(), b"Exif\0\0" + EXIF_6), True),
        ("xmp.jpg", lambda: jpeg_with(ramp(), b"http://ns.adobe.com/xap/1.0/\0" + XMP_6), True),
        ("garbage.jpg", lambda: jpeg_with(ramp(), b"Exif\0\0MM\0garbage"), False),
        ("nine.png", lambda: png_with(ramp(), (b"eXIf", EXIF_6.replace(b"\x06", b"\x09"))), False),
    ],
)
def test_header_and_pixels_agree_on_what_is_upright(tmp_path, name, data, turned):
    path = tmp_path / name
    path.write_bytes(data())
    image = read_image(path)
    assert read_size(path) == image.shape == ((40, 48) if turned else (48, 40))
    assert read_orientation(path) == (6 if turned else 1)
    across = np.diff(image.mean(axis=0 if image.shape == (48, 40) else 1))
    assert (across > -0.05).all()  # the ramp goes to the right, or, turned by a quarter, down
    mask = tmp_path / "mask.png"
    Image.fromarray(((image > 0.5) * 255).astype(np.uint8)).save(mask)
    sample = FileSample("x", "s", "x", "", path, (mask,))
    assert sample.mask().shape == image.shape


@pytest.mark.parametrize("stated", [0, 1, 12, 16])
def test_a_black_picture_is_black_whatever_bits_it_states(tmp_path, stated):
    path = tmp_path / "black.png"
    path.write_bytes(png_with(np.zeros((48, 48), np.uint16), (b"sBIT", bytes([stated]))))
    assert (read_image(path) == 0).all()


def test_a_turned_picture_whose_mask_would_fit_either_way_is_named(tmp_path):
    square, tall = np.tile(ramp()[:1], (40, 1)), ramp()
    for name, pixels, said in (("square", square, True), ("tall", tall, False)):
        image, mask = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        image.write_bytes(png_with(pixels, (b"eXIf", EXIF_6)))
        Image.fromarray(np.zeros(read_size(image), np.uint8)).save(mask)
        caution = FileSample(name, "s", name, "", image, (mask,)).caution
        assert (caution is not None) is said
    assert FileSample("x", "s", "x", "", mask, (mask,)).caution is None
    turned_too = tmp_path / "turned_mask.png"
    turned_too.write_bytes(png_with(square, (b"eXIf", EXIF_6)))
    assert FileSample("x", "s", "x", "", tmp_path / "square.png", (turned_too,)).caution is None


def test_libraries_print_nothing_of_their_own(tmp_path):
    noise = (np.random.default_rng(0).random((64, 64)) * 255).astype(np.uint8)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        path = tmp_path / f"{compression}.tif"
        Image.fromarray(noise).save(path, compression=compression)
        data = bytearray(path.read_bytes())
        data[20::37] = bytes(byte ^ 0x55 for byte in data[20::37])
        path.write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from lungseg.data.files.images import read_image\n"
        "from lungseg.system.errors import InputError\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try: read_image(path)\n"
        "    except InputError as error: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n" * 4, "")


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_exif_as_text_is_read_as_other_programs_write_it(tmp_path, kind):
    text = b"\nexif\n      26\n" + EXIF_6.hex().encode() + b"\n"
    before = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\0\0\0\0"}[kind]
    body = b"Raw profile type exif\0" + before + (zlib.compress(text) if kind == b"zTXt" else text)
    path = tmp_path / "text.png"
    path.write_bytes(png_with(ramp(), (kind, body)))
    assert read_size(path) == read_image(path).shape == (40, 48)
    path.write_bytes(png_with(ramp(), (kind, body[:30])))
    assert read_size(path) == read_image(path).shape == (48, 40)
