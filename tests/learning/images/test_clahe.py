import itertools

import numpy as np
import pytest
import torch

from lungseg.learning.images.clahe import apply_clahe


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(image, tiles, limit):
    """CLAHE of an array H x W, a tile and a pixel at a time."""
    height, width = image.shape
    rows, columns = min(tiles, height), min(tiles, width)
    levels = np.rint(np.pad(image, ((0, -height % rows), (0, -width % columns)), mode="reflect") * 255)
    levels = levels.astype(int)
    high, wide = levels.shape[0] // rows, levels.shape[1] // columns
    tables = np.empty((rows, columns, 256))
    for row, column in itertools.product(range(rows), range(columns)):
        tile = levels[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        counts = np.bincount(tile.ravel(), minlength=256)
        most = limit * tile.size / 256
        above = np.maximum(counts - most, 0).sum()
        tables[row, column] = np.cumsum(np.minimum(counts, most) + above / 256) / tile.size
    found = np.zeros((height, width))
    for y, x in itertools.product(range(height), range(width)):
        for row, row_share in neighbours(y, high, rows):
            for column, column_share in neighbours(x, wide, columns):
                found[y, x] += row_share * column_share * tables[row, column, levels[y, x]]
    return found


def neighbours(place, side, count):
    """The tiles whose centres lie before and after a pixel's centre, with their shares."""
    exact = (place + 0.5) / side - 0.5
    before = int(np.floor(exact))
    share = exact - before
    return [(max(before, 0), 1 - share), (min(before + 1, count - 1), share)]


@pytest.mark.parametrize("limit", [2, 4])
@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [(24, 16, 4), (21, 13, 4), (13, 40, 8), (5, 40, 8), (9, 4, 8), (3, 2, 8), (1, 1, 8), (20, 30, 1)],
)
def test_agrees_with_loops_over_tiles_and_pixels(height, width, tiles, limit):
    # Squared and partly flat: levels that are frequent in one tile and rare in another.
    images = random(2, 1, height, width) ** 2
    images[:, :, : height // 3] = 0.31
    found = apply_clahe(images, tiles, limit)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    for one, image in zip(found, images, strict=True):
        np.testing.assert_allclose(one[0].numpy(), by_loops(image[0].numpy(), tiles, limit), atol=1e-5)


def test_agrees_with_opencv():
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[:256, :384]
    noise = np.random.default_rng(0).integers(-4, 5, (256, 384))
    levels = (120 + 20 * np.sin(x / 40) + 10 * np.cos(y / 25) + noise).astype(np.uint8)
    image = torch.from_numpy(levels / np.float32(255))[None, None]
    expected = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(levels) / 255
    found = apply_clahe(image, tiles=4, limit=2.0)[0, 0].numpy()
    # OpenCV rounds to levels, shares whole pixels out, and measures places from pixels' corners.
    difference = np.abs(found - expected)
    assert difference.max() < 0.03
    assert difference.mean() < 0.01
    assert np.abs(found - levels / 255).mean() > 0.05  # it isn't that nothing was done


@pytest.mark.parametrize("shape", [(32, 48), (33, 50)])
def test_a_constant_image_stays_constant(shape):
    # Level 102: twice a fair share stays there, 254 of 256 parts are shared out, 103 of 256 up to it.
    expected = torch.full((1, 1, *shape), 2 / 256 + 254 / 256 * 103 / 256)
    torch.testing.assert_close(apply_clahe(torch.full((1, 1, *shape), 0.4)), expected, atol=1e-6, rtol=0)


def test_faint_detail_gains_contrast_but_not_without_limit():
    faint = 0.1 + 0.05 * random(1, 1, 64, 80)
    # The clipped level and what all levels get: at most limit + 1 times as steep.
    assert 2 < apply_clahe(faint, limit=2.0).std() / faint.std() < 3.5


def test_what_is_brighter_in_a_tile_stays_brighter():
    image = random(1, 1, 40, 30)
    order = image.flatten().argsort()
    brighter = apply_clahe(image, tiles=1).flatten()[order].diff()
    assert brighter.min() >= -1e-6  # rounding between pixels of one level
    assert brighter.max() > 1 / 300


def test_an_image_does_not_depend_on_its_batch():
    images = random(8, 1, 40, 24)
    whole = apply_clahe(images)
    assert torch.equal(torch.cat([apply_clahe(images[:3]), apply_clahe(images[3:])]), whole)
    assert torch.equal(apply_clahe(images[5:6]), whole[5:6])


def test_values_stay_between_0_and_1():
    black_and_white = random(4, 1, 37, 50).round()
    found = apply_clahe(black_and_white)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[black_and_white == 1].min() > 1 - 1e-6
