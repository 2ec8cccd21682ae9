"""Files whose pixels can't be what was written: Pillow reads them, with gaps filled in silence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lungseg.data.files.images import read_image, read_mask
from lungseg.system.errors import InputError

NOISE = (np.random.default_rng(0).random((80, 64)) * 255).astype(np.uint8)


def encode(format_name, pixels=NOISE, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name, **options)
    return bytearray(buffer.getvalue())


def refused(path, data, said):
    path.write_bytes(data)
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match=rf"{path.name} is truncated or damaged \({said}"):
            read(path)


def test_a_block_of_zeros_within_the_pixels_of_a_png(tmp_path):
    data = encode("PNG")
    place = data.index(b"IDAT") + 1000
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), NOISE)
    data[place : place + 512] = bytes(512)
    refused(tmp_path / "zeros.png", data, "its pixels are not those of its checksum")


def with_header(data, **fields):
    """A PNG with another width or height, and the checksum of that header."""
    header = bytearray(data[16:29])
    for name, value in fields.items():
        place = {"width": 0, "height": 4}[name]
        header[place : place + 4] = struct.pack(">I", value)
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return data


def test_a_png_whose_pixels_end_too_early(tmp_path):
    refused(
        tmp_path / "tall.png",
        with_header(encode("PNG"), height=800),
        f"its pixels end after {80 * 65} of {800 * 65} bytes",
    )
    data = with_header(encode("PNG", (NOISE > 127)), height=81)  # a bit a pixel
    refused(tmp_path / "bits.png", data, f"its pixels end after {80 * 9} of {81 * 9} bytes")


def test_a_small_file_that_unpacks_to_much_is_read_no_further_than_its_size(tmp_path):
    bomb = zlib.compress(bytes(2**26), 9)
    data = encode("PNG")
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    chunk = struct.pack(">I", len(bomb)) + b"IDAT" + bomb + struct.pack(">I", zlib.crc32(b"IDAT" + bomb))
    (tmp_path / "bomb.png").write_bytes(data[:start] + chunk + data[end:])
    assert (read_image(tmp_path / "bomb.png") == 0).all()


@pytest.mark.parametrize(
    "pixels", [NOISE, NOISE.astype(np.uint16) * 257, NOISE > 127, np.dstack([NOISE] * 3)]
)
def test_whole_files_of_each_kind_are_read(tmp_path, pixels):
    for interlaced in (False, True):
        (tmp_path / "whole.png").write_bytes(encode("PNG", pixels, interlace=interlaced))
        assert read_image(tmp_path / "whole.png").shape == (80, 64)
    (tmp_path / "whole.tif").write_bytes(encode("TIFF", pixels))
    assert read_image(tmp_path / "whole.tif").shape == (80, 64)


def test_a_tiff_whose_strips_do_not_reach_its_last_row(tmp_path):
    data = encode("TIFF")
    (directory,) = struct.unpack("<I", data[4:8])
    entries = range(
        directory + 2, directory + 2 + 12 * struct.unpack("<H", data[directory : directory + 2])[0], 12
    )
    (height,) = (place for place in entries if struct.unpack("<H", data[place : place + 2]) == (257,))
    data[height + 8 : height + 12] = struct.pack("<I", 8000)
    refused(tmp_path / "tall.tif", data, r"its strips hold 80 of 8000 rows")
