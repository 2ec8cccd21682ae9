import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from lungseg.data.audit import candidates, pictures
from lungseg.data.audit.descriptor import DIMENSIONS, ROWS, WINDOWS, describe_picture
from lungseg.data.audit.pictures import NEAR_DUPLICATE, compare_blocks, find_alike_pairs, prepare_picture
from lungseg.data.datasets.phantom import render
from tests.data.audit.exhaustive import find_all_pairs

LEAST, PHANTOMS = 0.65, 12


def compress(image):
    buffer = io.BytesIO()
    Image.fromarray((image * 255).astype(np.uint8)).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer)) / np.float32(255)


def turn(image, degrees):
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


COPIES = (
    lambda image: np.asarray(Image.fromarray(image).resize((150, 180), Image.Resampling.BICUBIC)),
    compress,
    lambda image: np.clip(1.1 * image**0.6, 0, 1),
    lambda image: image[:, ::-1],
    lambda image: image[4:-9, 11:-2],
    lambda image: image[13:-13, 13:-13],
    lambda image: image[26:, :-26],
    lambda image: turn(image, 3),
    lambda image: np.clip(0.1 + 1.2 * image**0.5, 0, 1),
    lambda image: compress(image[9:, 4:, None][..., 0][:, ::-1] ** 0.7),
)


def prepare(image):
    return prepare_picture(np.ascontiguousarray(image, np.float32))


@pytest.fixture(scope="module")
def phantoms():
    return [render(4, index, 256)[0] for index in range(PHANTOMS)]


@pytest.fixture(scope="module")
def prepared(phantoms):
    """Phantoms, then a copy of each kind of one of them."""
    return [*map(prepare, phantoms), *(prepare(change(phantoms[i])) for i, change in enumerate(COPIES))]


@pytest.fixture(scope="module")
def found(prepared):
    return find_alike_pairs(prepared, LEAST)


def test_the_sieves_lose_nothing_that_comparing_everything_finds(prepared, found):
    expected = find_all_pairs(prepared, LEAST)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in expected], atol=1e-3)
    copies = {(index, index + PHANTOMS) for index in range(len(COPIES))} - {
        (8, 8 + PHANTOMS)
    }  # overexposed: often missed
    assert copies <= {pair[:2] for pair in found if pair[2] >= NEAR_DUPLICATE}


def test_the_order_of_the_pictures_doesn_t_matter(prepared, found):
    order = np.random.default_rng(0).permutation(len(prepared))
    again = find_alike_pairs([prepared[index] for index in order], LEAST)
    named = sorted((*sorted((order[i].item(), order[j].item())), alike) for i, j, alike in again)
    assert [pair[:2] for pair in named] == [pair[:2] for pair in found]
    np.testing.assert_allclose([pair[2] for pair in named], [pair[2] for pair in found], atol=1e-4)


@pytest.mark.parametrize("block", [1, 7])
def test_blocks_and_chunks_don_t_change_what_is_found(prepared, found, monkeypatch, block):
    monkeypatch.setattr(pictures, "_BLOCK", block)
    monkeypatch.setattr(candidates, "_CHUNK", 5)
    again = find_alike_pairs(prepared, LEAST)
    assert [pair[:2] for pair in again] == [pair[:2] for pair in found]
    np.testing.assert_allclose([pair[2] for pair in again], [pair[2] for pair in found], atol=1e-4)


def test_what_is_known_is_not_compared_again(prepared, found, monkeypatch):
    multiplied = []
    compare = candidates._compare
    monkeypatch.setattr(
        candidates, "_compare", lambda given, task: multiplied.append(task) or compare(given, task)
    )
    descriptions = np.stack([describe_picture(one) for one in prepared])
    last = len(prepared) - 1
    blocks = list(compare_blocks(descriptions, prepared.__getitem__, last, LEAST))
    assert blocks == [(len(prepared), [pytest.approx(pair, abs=1e-4) for pair in found if pair[1] == last])]
    assert all(
        last == (task.parts.start if task.parts.stop > last else task.wholes.start) for task in multiplied
    )
    compared = sum(
        (task.parts.stop - task.parts.start) * (task.wholes.stop - task.wholes.start) for task in multiplied
    )
    assert compared == 2 * last + 1  # once in each role, and with itself


def test_the_memory_is_bounded_by_blocks(monkeypatch):
    monkeypatch.setattr(pictures, "_BLOCK", 32)
    monkeypatch.setattr(candidates, "_CHUNK", 64)
    rng = np.random.default_rng(0)
    peaks = []
    for count in (256, 2048):
        rows = rng.standard_normal((count, ROWS, DIMENSIONS))
        rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float16)
        tracemalloc.start()
        assert not any(pairs for _, pairs in compare_blocks(rows, lambda _: pytest.fail("read"), 0, LEAST))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 2048 * 2048 * 4  # no table of all pairs


def test_a_description_is_short_and_survives_what_copies_undergo(phantoms):
    described = [describe_picture(prepare(image)).astype(np.float32) for image in phantoms]
    assert described[0].shape == (2 + len(WINDOWS), DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(described[0], axis=1), 1, atol=2e-3)
    mirrored = describe_picture(prepare(phantoms[0][:, ::-1])).astype(np.float32)
    np.testing.assert_allclose(mirrored[:2], described[0][1::-1], atol=0.02)
    brighter = describe_picture(prepare(np.clip(1.1 * phantoms[0] ** 0.6, 0, 1))).astype(np.float32)
    assert brighter[0] @ described[0][0] > 0.95
    others = max(float(one[0] @ described[0][0]) for one in described[1:])
    assert others < 0.8
