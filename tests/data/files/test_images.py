import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lungseg.data.files.images import SizeMismatch, read_image, read_mask
from lungseg.data.files.raster import read_size
from lungseg.system.errors import InputError

H, W = 16, 20


def ramp(top, dtype=np.uint8):
    """H x W with 0 at the first pixel and `top` at the last."""
    return np.linspace(0, top, H * W).round().reshape(H, W).astype(dtype)


def two_lungs(size=256, left=255, right=255):
    picture = Image.new("L", (size, size))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([0.1 * size, 0.1 * size, 0.45 * size, 0.9 * size], fill=left)
    draw.ellipse([0.55 * size, 0.1 * size, 0.9 * size, 0.9 * size], fill=right)
    return picture


def save(path, array_or_image, **options):
    picture = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    picture.save(path, **options)
    return path


# Images: modes


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_eight_bit_modes_of_every_lossless_format(tmp_path, suffix, mode):
    grey = ramp(255)
    if mode == "1":
        grey = np.where(grey > 127, 255, 0).astype(np.uint8)
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(grey).convert(mode))
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, (grey / 255).astype(np.float32))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_changes_nothing(tmp_path, suffix, mode):
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(ramp(255)).convert(mode))
    np.testing.assert_array_equal(read_image(path), (ramp(255) / 255).astype(np.float32))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path, mode):
    path = save(tmp_path / "x.JPG", Image.fromarray(ramp(255)).convert(mode), format="JPEG", quality=95)
    assert np.abs(read_image(path) - ramp(255) / 255).max() < 0.03


def test_colour_becomes_luminance(tmp_path):
    path = save(tmp_path / "x.png", Image.new("RGB", (W, H), (200, 100, 50)))
    # ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    np.testing.assert_allclose(read_image(path), 124 / 255, rtol=1e-6)


def test_palette_colours_count_in_an_image(tmp_path):
    picture = Image.new("P", (W, H), 1)
    picture.putpalette([255, 255, 255, 51, 51, 51])
    np.testing.assert_allclose(read_image(save(tmp_path / "x.png", picture)), 0.2, rtol=1e-6)


def test_transparent_pixels_are_black(tmp_path):
    picture = Image.new("LA", (W, H), (200, 255))
    picture.paste((200, 0), (0, 0, 5, H))
    picture.paste((200, 51), (5, 0, 10, H))
    image = read_image(save(tmp_path / "x.png", picture))
    assert image[0, 0] == 0
    np.testing.assert_allclose(image[0, 5], 200 / 255 * 0.2, rtol=1e-6)
    np.testing.assert_allclose(image[0, 10], 200 / 255, rtol=1e-6)


def test_a_transparent_palette_entry_is_black(tmp_path):
    picture = Image.new("P", (W, H), 1)
    picture.putpalette([255, 255, 255, 51, 51, 51])
    picture.paste(0, (0, 0, 5, H))
    image = read_image(save(tmp_path / "x.png", picture, transparency=0))
    assert image[0, 0] == 0
    np.testing.assert_allclose(image[0, 6], 0.2, rtol=1e-6)


# Images: more than 8 bits


@pytest.mark.parametrize(
    ("top", "white"), [(200, 255), (1000, 1023), (4095, 4095), (3000, 4095), (16000, 16383), (40000, 65535)]
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_by_the_fewest_bits_that_hold_them(tmp_path, top, white, suffix):
    path = save(tmp_path / f"x.{suffix}", ramp(top, np.uint16))
    np.testing.assert_allclose(read_image(path), ramp(top, np.uint16) / white, rtol=1e-6)


def test_png_sbit_states_the_range(tmp_path, write_png):
    rows = ramp(900, ">u2").tobytes()
    path = write_png(tmp_path / "x.png", W, H, 16, 0, rows, [(b"sBIT", b"\x0c")])
    np.testing.assert_allclose(read_image(path).max(), 900 / 4095, rtol=1e-6)


def test_png_sbit_of_samples_that_were_scaled_up(tmp_path, write_png):
    # 12 bits moved up by 4, as the PNG specification asks for: the range is that of 16 bits.
    rows = (ramp(1000, np.uint16) << 4).astype(">u2").tobytes()
    path = write_png(tmp_path / "x.png", W, H, 16, 0, rows, [(b"sBIT", b"\x0c")])
    np.testing.assert_allclose(read_image(path).max(), 16000 / 65535, rtol=1e-6)


def test_tiff_of_12_packed_bits(tmp_path, write_tiff):
    values = ramp(900, np.uint16)
    first, second = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8)
    path = write_tiff(tmp_path / "x.tif", packed.tobytes(), W, H, 12)
    np.testing.assert_allclose(read_image(path), values / 4095, rtol=1e-6)


def test_tiff_big_endian_16_bits(tmp_path, write_tiff):
    path = write_tiff(tmp_path / "x.tif", ramp(4000, ">u2").tobytes(), W, H, 16, order=">")
    np.testing.assert_allclose(read_image(path), ramp(4000, np.uint16) / 4095, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "bits", "white"), [("<u1", 8, 255), ("<u2", 16, 4095), ("<f4", 32, 1)], ids=["8", "16", "float"]
)
def test_white_is_zero(tmp_path, write_tiff, dtype, bits, white):
    values = ramp(white, np.uint16).astype(dtype) if white > 1 else np.linspace(0, 1, H * W, dtype=dtype)
    sample_format = 3 if "f" in dtype else 1
    path = write_tiff(tmp_path / "x.tif", values.tobytes(), W, H, bits, 0, sample_format)
    np.testing.assert_allclose(read_image(path), 1 - values.reshape(H, W) / white, atol=1e-6)


def test_32_bit_integers(tmp_path):
    path = save(tmp_path / "x.tif", ramp(100_000, np.int32))
    np.testing.assert_allclose(read_image(path).max(), 100_000 / (2**24 - 1), rtol=1e-6)


def test_unsigned_32_bits_above_half_their_range(tmp_path, write_tiff):
    values = np.full((H, W), 2**32 - 1, "<u4")
    values[0, 0] = 0
    image = read_image(write_tiff(tmp_path / "x.tif", values.tobytes(), W, H, 32))
    assert image[0, 0] == 0
    assert image[5, 5] == 1


def test_negative_values_are_stretched_to_their_own_range(tmp_path, write_tiff):
    values = np.full((H, W), -1000, "<i2")
    values[0, 0], values[0, 1] = 1000, 0
    image = read_image(write_tiff(tmp_path / "x.tif", values.tobytes(), W, H, 16, sample_format=2))
    np.testing.assert_allclose(image[0, :3], [1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize(("top", "white"), [(1.0, 1.0), (0.5, 1.0), (200.5, 255.0), (4095.0, 4095.0)])
def test_floats_within_0_and_1_stay_and_others_are_scaled_as_integers(tmp_path, top, white):
    values = np.linspace(0, top, H * W, dtype=np.float32).reshape(H, W)
    np.testing.assert_allclose(read_image(save(tmp_path / "x.tif", values)), values / white, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_values_that_are_not_finite_are_refused(tmp_path, value, read):
    values = np.zeros((H, W), np.float32)
    values[3, 3] = value
    with pytest.raises(InputError, match=r"x\.tif has values that are not finite"):
        read(save(tmp_path / "x.tif", values))


def test_16_bit_colour(tmp_path, write_png):
    full = np.repeat(ramp(65535, ">u2")[..., None], 3, axis=2)
    path = write_png(tmp_path / "x.png", W, H, 16, 2, full.tobytes())
    assert np.abs(read_image(path) - ramp(65535, np.uint16) / 65535).max() < 1 / 255
    # Of 12 bits in the lower part only 4 would be left: better no image than a ruined one.
    dark = np.repeat(ramp(4095, ">u2")[..., None], 3, axis=2)
    with pytest.raises(InputError, match="save it as 16-bit grey"):
        read_image(write_png(tmp_path / "dark.png", W, H, 16, 2, dark.tobytes()))


# Orientation


def stored(upright, orientation):
    """The pixels that a file must hold so that its EXIF orientation turns them into `upright`."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "dtype"), [("png", np.uint8), ("png", np.uint16), ("tif", np.uint16)])
def test_orientation(tmp_path, write_tiff, orientation, suffix, dtype):
    upright = ramp(255, dtype)
    pixels = np.ascontiguousarray(stored(upright, orientation))
    path = tmp_path / f"x.{suffix}"
    if suffix == "tif":
        height, width = pixels.shape
        write_tiff(path, pixels.astype("<u2").tobytes(), width, height, 16, orientation=orientation)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        save(path, pixels, exif=exif)
    np.testing.assert_allclose(read_image(path), upright / 255, rtol=1e-6)
    assert read_size(path) == (H, W)


def test_orientation_of_a_jpeg(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the file holds the picture turned to the left by a quarter
    path = save(tmp_path / "x.jpg", np.rot90(ramp(255)).copy(), exif=exif, quality=95)
    assert np.abs(read_image(path) - ramp(255) / 255).max() < 0.03
    assert read_size(path) == (H, W)


# Files that are refused


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("read", [read_image, read_mask, read_size])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.png is empty \(0 bytes\)"),
        (b"<html>not found</html>", r"x\.png is no PNG, JPEG, TIFF, BMP or GIF image"),
        (b"\x89PNG\r\n\x1a\nrubbish", r"x\.png is no readable PNG image"),
        (b"\xff\xd8\xff", r"x\.png is no readable JPEG image"),
        (b"II*\0\xff\xff\xff\xff", r"x\.png is no readable TIFF image"),
        (b"BMW", r"x\.png is no readable BMP image"),
    ],
    ids=["empty", "html", "png", "jpeg", "tiff", "bmp"],
)
def test_no_image(tmp_path, content, message, read):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"x\.png doesn't exist"):
        read_image(tmp_path / "x.png")
    with pytest.raises(InputError, match="can't be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_truncated(tmp_path, suffix, read):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = save(tmp_path / f"x.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=rf"x\.{suffix} is (truncated or damaged|no readable)"):
        read(path)


def test_truncated_compressed_tiff(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = save(tmp_path / "x.tif", noise, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[200:2000] = bytes(1800)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.tif is truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("size", [(1, 1), (15, 400)])
def test_too_small(tmp_path, size):
    path = save(tmp_path / "x.png", Image.new("L", size))
    with pytest.raises(InputError, match=rf"x\.png is {size[0]} x {size[1]} pixels, too small"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_mask, read_size])
@pytest.mark.parametrize("side", [8001, 30_000])
def test_huge_is_refused_by_its_header_alone(tmp_path, write_png, read, side):
    path = write_png(
        tmp_path / "x.png", side, side, 8, 0
    )  # it has no pixels: decoding it would say "truncated"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=rf"claims {side} x {side} pixels, more than the 64 megapixels"):
            read(path)


def test_huge_tiff_and_bmp(tmp_path, write_tiff):
    with pytest.raises(InputError, match="claims 30000 x 30000 pixels"):
        read_image(write_tiff(tmp_path / "x.tif", b"\0\0", 30_000, 30_000, 8))
    header = struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "x.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header)
    with pytest.raises(InputError, match="claims 30000 x 30000 pixels"):
        read_image(tmp_path / "x.bmp")


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_several_frames(tmp_path, suffix):
    one, two = Image.fromarray(ramp(255)), Image.fromarray(ramp(200))
    path = save(tmp_path / f"x.{suffix}", one, save_all=True, append_images=[two])
    with pytest.raises(InputError, match="holds 2 frames"):
        read_image(path)


# Masks


BOX = np.zeros((H, W), bool)
BOX[4:12, 5:15] = True


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0, 128), (10, 12)])
def test_two_values_are_divided_at_half_their_range(tmp_path, suffix, low, high):
    path = save(tmp_path / f"x.{suffix}", np.where(BOX, high, low).astype(np.uint8))
    mask = read_mask(path)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, BOX)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "RGBA"])
def test_masks_of_other_modes(tmp_path, mode):
    picture = Image.fromarray(np.where(BOX, 255, 0).astype(np.uint8)).convert(mode)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.png", picture)), BOX)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("high", [1, 4095])
def test_masks_of_more_bits(tmp_path, dtype, high):
    path = save(tmp_path / "x.tif", np.where(BOX, high, 0).astype(dtype))
    np.testing.assert_array_equal(read_mask(path), BOX)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (16, "<u2")])
def test_white_is_zero_mask(tmp_path, write_tiff, bits, dtype):
    values = np.where(BOX, 0, 2**bits - 1).astype(dtype)
    np.testing.assert_array_equal(
        read_mask(write_tiff(tmp_path / "x.tif", values.tobytes(), W, H, bits, 0)), BOX
    )


def palette_mask(path, inside, outside, colours):
    picture = Image.fromarray(np.where(BOX, inside, outside).astype(np.uint8))
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([channel for colour in colours for channel in colour])
    return save(path, picture)


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 128, 0)


@pytest.mark.parametrize(
    ("inside", "outside", "colours"),
    [
        (1, 0, [BLACK, WHITE]),
        (0, 1, [WHITE, BLACK]),  # a library that reduces colours numbers them as it likes
        (1, 0, [BLACK, RED]),  # a label map
        (2, 0, [BLACK, RED, GREEN]),
        (0, 1, [RED, BLACK]),
        (1, 0, [WHITE, RED]),  # red lungs drawn on white paper: the index counts
        (1, 0, [BLACK, BLACK]),  # a palette that nobody filled in
        (1, 0, [BLACK, (1, 1, 1)]),  # 0 and 1 saved with a grey palette
    ],
)
def test_palette_masks(tmp_path, inside, outside, colours):
    path = palette_mask(tmp_path / "x.png", inside, outside, colours)
    np.testing.assert_array_equal(read_mask(path), BOX)


def test_opacity_is_the_mask_where_the_colour_is_constant(tmp_path):
    picture = Image.new("RGBA", (W, H), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (5, 4, 15, 12))  # black lungs on a transparent background
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.png", picture)), BOX)


@pytest.mark.parametrize(("value", "expected"), [(0, False), (1, True), (255, True)])
def test_constant_masks(tmp_path, value, expected):
    mask = read_mask(save(tmp_path / "x.png", Image.new("L", (W, H), value)))
    np.testing.assert_array_equal(mask, np.full((H, W), expected))


@pytest.mark.parametrize(
    "soften",
    [
        lambda m: m.resize((64, 64), Image.Resampling.BOX),
        lambda m: m.resize((300, 300), Image.Resampling.BICUBIC),
        lambda m: m.resize((48, 48), Image.Resampling.BOX).resize((256, 256), Image.Resampling.BILINEAR),
        lambda m: m.filter(ImageFilter.GaussianBlur(3)),
        lambda m: m.rotate(3, Image.Resampling.BILINEAR),
    ],
    ids=["shrunk", "enlarged", "shrunk-and-enlarged", "blurred", "rotated"],
)
def test_soft_edges_are_cut_at_half(tmp_path, soften):
    soft = soften(two_lungs())
    mask = read_mask(save(tmp_path / "x.png", soft))
    np.testing.assert_array_equal(mask, np.asarray(soft) > 127.5)
    assert 0.3 < mask.mean() < 0.5


@pytest.mark.parametrize("quality", [20, 60, 95])
def test_jpeg_masks(tmp_path, quality):
    mask = read_mask(save(tmp_path / "x.jpg", two_lungs(), quality=quality))
    assert np.mean(mask != (np.asarray(two_lungs()) > 127)) < 0.002


@pytest.mark.parametrize(
    ("left", "right", "named"),
    [(1, 2, "0, 1, 2"), (127, 255, "0, 127, 255"), (128, 255, "0, 128, 255"), (1, 255, "0, 1, 255")],
)
def test_three_labels_are_refused_and_named(tmp_path, left, right, named):
    path = save(tmp_path / "x.png", two_lungs(left=left, right=right))
    with pytest.raises(InputError, match=rf"x\.png has 3 labels \({named}\)"):
        read_mask(path)


def test_a_small_third_label_is_refused_where_it_would_become_the_mask(tmp_path):
    picture = two_lungs(left=1, right=1)
    picture.paste(2, (60, 100, 66, 106))  # a nodule inside a lung
    with pytest.raises(InputError, match=r"3 labels \(0, 1, 2\)"):
        read_mask(save(tmp_path / "x.png", picture))


def test_three_labels_of_a_jpeg_or_a_colour_picture(tmp_path):
    with pytest.raises(InputError, match="has 3 labels"):
        read_mask(save(tmp_path / "x.jpg", two_lungs(left=127), quality=75))
    coloured = Image.merge("RGB", [two_lungs(left=0), two_lungs(right=0), Image.new("L", (256, 256))])
    with pytest.raises(InputError, match=r"has 3 labels \(0, 76, 150\)"):
        read_mask(save(tmp_path / "x.png", coloured))


def test_a_picture_in_place_of_a_mask(tmp_path):
    noise = np.random.default_rng(0).normal(128, 40, (64, 64)).clip(0, 255).astype(np.uint8)
    with pytest.raises(InputError, match=r"looks like a picture, not a mask .* swapped"):
        read_mask(save(tmp_path / "x.png", noise))


def test_another_size_names_both_files_and_sizes(tmp_path):
    path = save(tmp_path / "mask.png", BOX.astype(np.uint8))
    with pytest.raises(
        SizeMismatch, match=r"mask\.png is 20 x 16 pixels but its image .*x\.png is 512 x 400"
    ):
        read_mask(path, (400, 512), tmp_path / "x.png")
    assert read_mask(path, (H, W)).shape == (H, W)
