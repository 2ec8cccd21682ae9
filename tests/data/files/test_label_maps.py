import numpy as np
import pytest
from PIL import Image

from lungseg.data.files.images import SizeMismatch, read_mask
from lungseg.data.files.label_maps import read_labels, require_labels
from lungseg.data.files.mask_sizes import require_sizes, resize_mask
from lungseg.system.errors import InputError

MAP = np.repeat(np.array([0, 1, 7, 2], np.uint8), 5)[None].repeat(16, 0)  # 16 x 20


def save(path, values, palette=None):
    picture = Image.fromarray(values)
    if palette is not None:
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([channel for colour in palette for channel in colour])
    picture.save(path)
    return path


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.bmp", "x.gif"])
def test_grey_values_are_labels(tmp_path, name):
    np.testing.assert_array_equal(read_labels(save(tmp_path / name, MAP)), MAP)


def test_a_palette_with_colours_counts_by_number_and_one_of_greys_by_grey(tmp_path):
    colours = [(0, 0, 0), (200, 0, 0), (0, 0, 200), *[(9, 9, 9)] * 4, (0, 200, 0)]
    np.testing.assert_array_equal(read_labels(save(tmp_path / "x.png", MAP, colours)), MAP)
    greys = [(n * 10,) * 3 for n in range(8)]
    np.testing.assert_array_equal(read_labels(save(tmp_path / "x.png", MAP, greys)), MAP * 10)
    np.testing.assert_array_equal(read_labels(save(tmp_path / "x.png", MAP, [(0, 0, 0)] * 8)), MAP)


def test_labels_of_16_bits_and_of_whole_floats(tmp_path):
    for dtype in (np.uint16, np.float32):
        np.testing.assert_array_equal(
            read_labels(save(tmp_path / "x.tif", (MAP * 100).astype(dtype))), MAP * 100
        )


def test_transparent_pixels_are_0(tmp_path):
    alpha = np.where(MAP == 7, 0, 255).astype(np.uint8)
    path = tmp_path / "x.png"
    Image.merge("LA", [Image.fromarray(MAP), Image.fromarray(alpha)]).save(path)
    np.testing.assert_array_equal(read_labels(path), np.where(MAP == 7, 0, MAP))


def test_files_that_hold_no_labels(tmp_path):
    with pytest.raises(InputError, match=r"x\.jpg is a JPEG, whose compression changes labels: save"):
        read_labels(save(tmp_path / "x.jpg", MAP))
    with pytest.raises(InputError, match=r"x\.tif has values that are no whole numbers"):
        read_labels(save(tmp_path / "x.tif", MAP / np.float32(4)))
    with pytest.raises(InputError, match=r"x\.png has colours and no palette"):
        read_labels(save(tmp_path / "x.png", np.stack([MAP * 30, MAP * 0, MAP * 0], axis=2)))


def test_masks_are_read_until_every_label_was_seen(tmp_path):
    first = save(tmp_path / "x.png", np.where(MAP == 2, 0, MAP))
    second = save(tmp_path / "y.png", MAP)
    (tmp_path / "z.png").write_bytes(b"no picture")
    require_labels([1, 2], [tmp_path / "z.png", first, second, tmp_path / "never-read.png"])
    with pytest.raises(InputError, match=r"has 2, which is in none of 1 masks \(their values are 0, 1, 7\)"):
        require_labels([1, 2], [first, tmp_path / "z.png"])


@pytest.mark.parametrize(("small", "large"), [(1, 2), (127, 255), (40, 255)])
def test_a_small_lung_is_a_label_of_its_own(tmp_path, small, large):
    values = np.zeros((96, 96), np.uint8)
    values[20:26, 20:26], values[15:75, 55:85] = small, large  # 36 pixels are 0.4 % of the picture
    with pytest.raises(InputError, match=rf"has 3 labels \(0, {small}, {large}\)"):
        read_mask(save(tmp_path / "x.png", values))


def test_steps_of_a_coarse_soft_edge_are_no_labels(tmp_path):
    rows, columns = np.mgrid[:256, :256]
    disc = Image.fromarray(
        np.where((rows - 128) ** 2 + (columns - 120) ** 2 < 90**2, 255, 0).astype(np.uint8)
    )
    coarse = disc.resize((32, 32), Image.Resampling.BOX).resize((256, 256), Image.Resampling.NEAREST)
    mask = read_mask(save(tmp_path / "x.png", np.asarray(coarse)))
    np.testing.assert_array_equal(mask, np.asarray(coarse) > 127.5)


# Masks of another size


def test_resizing_takes_the_nearest_pixel(tmp_path):
    mask = np.array([[0, 1], [1, 1]], bool)
    resized = resize_mask(mask, (4, 4), tmp_path, tmp_path)
    np.testing.assert_array_equal(resized, [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    # The centres of three columns are at 1/6, 3/6 and 5/6 of six: columns 1, 3 and 5.
    np.testing.assert_array_equal(
        resize_mask(np.arange(36).reshape(6, 6), (3, 3), tmp_path, tmp_path)[0], [7, 9, 11]
    )


@pytest.mark.parametrize(("shape", "fits"), [((50, 101), True), ((50, 102), False), ((100, 50), False)])
def test_aspect_ratios_may_differ_by_1_percent(tmp_path, shape, fits):
    mask = np.ones((100, 200), bool)
    if fits:
        assert resize_mask(mask, shape, tmp_path / "m.png", tmp_path / "i.png").shape == shape
    else:
        with pytest.raises(
            SizeMismatch, match=r"m\.png is 200 x 100 pixels and its image .*another aspect rat"
        ):
            resize_mask(mask, shape, tmp_path / "m.png", tmp_path / "i.png")


def test_several_masks_of_another_size_make_one_sentence(tmp_path):
    sizes = {"image": (40, 40), "half": (20, 20), "third": (30, 30), "wide": (20, 40)}
    image, half, third, wide = (
        save(tmp_path / f"{name}.png", np.zeros(size, np.uint8)) for name, size in sizes.items()
    )
    require_sizes([(image, image)])
    require_sizes([(image, image), (image, half)])  # a single one may be a wrong mask: refused by name
    with pytest.raises(SizeMismatch, match=r"^2 masks are of another size, 0\.5 to 0\.75 of their image's"):
        require_sizes([(image, half), (image, third)])
    require_sizes([(image, half), (image, wide)])  # resize_masks would not help: each is refused by name
