"""Masks and maps of other programs, in every form in which they are stored, mean the same."""

import numpy as np
import pytest
from PIL import Image

from lungseg.data.files.given_maps import list_given_files, read_given_map
from lungseg.system.errors import InputError

SHAPE = (20, 24)
MASK = np.zeros(SHAPE, bool)
MASK[4:16, 6:12] = True
RAMP = np.linspace(0, 1, MASK.size).reshape(SHAPE)  # of 480 values


def write(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.npy", MASK),
        ("a.npy", MASK.astype(np.uint8)),
        ("a.npy", MASK.astype(np.uint8) * 255),
        ("a.npy", MASK.astype(np.int64)),
        ("a.npy", MASK.astype(np.float64)),
        ("a.png", MASK),
        ("a.png", MASK.astype(np.uint8)),
        ("a.png", MASK.astype(np.uint8) * 255),
        ("a.tif", MASK.astype(np.uint16) * 65535),
        ("a.bmp", MASK.astype(np.uint8) * 3),
        ("a.tif", MASK.astype(np.float32)),
        ("a.tif", MASK.astype(np.float32) * 255),
    ],
)
def test_forms_of_a_mask(tmp_path, name, values):
    found = read_given_map(write(tmp_path / name, values), SHAPE)
    np.testing.assert_array_equal(found, MASK.astype(np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("a.npy", RAMP, 1e-7),
        ("a.npy", RAMP.astype(np.float16), 1e-3),
        ("a.npy", RAMP.astype(np.float32), 1e-7),
        ("a.npy", np.round(RAMP * 255).astype(np.uint8), 0.002),
        ("a.npy", np.round(RAMP * 65535).astype(np.uint16), 1e-5),
        ("a.png", np.round(RAMP * 255).astype(np.uint8), 0.002),
        ("a.png", np.round(RAMP * 65535).astype(np.uint16), 1e-5),
        ("a.tif", RAMP.astype(np.float32), 1e-7),
    ],
)
def test_forms_of_a_probability_map(tmp_path, name, values, error):
    found = read_given_map(write(tmp_path / name, values), SHAPE)
    np.testing.assert_allclose(found, RAMP, atol=error)


@pytest.mark.parametrize("name", ["a.npy", "a.png"])
@pytest.mark.parametrize(("value", "lung"), [(0, 0), (1, 1), (255, 1)])
def test_masks_of_one_value(tmp_path, name, value, lung):
    found = read_given_map(write(tmp_path / name, np.full(SHAPE, value, np.uint8)), SHAPE)
    np.testing.assert_array_equal(found, np.full(SHAPE, lung, np.float32))


def test_a_map_of_few_floats_is_no_mask(tmp_path):
    for name in ("a.npy", "a.tif"):
        values = np.where(MASK, 0.3, 0.2).astype(np.float32)
        np.testing.assert_array_equal(read_given_map(write(tmp_path / name, values), SHAPE), values)


def test_all_values_of_a_stored_map_come_back_on_the_same_side_of_one_half(tmp_path):
    values = np.repeat(np.arange(256, dtype=np.uint8), 2).reshape(16, 32)
    found = read_given_map(write(tmp_path / "a.png", values), (16, 32))
    np.testing.assert_array_equal(found >= 0.5, values >= 128)


def test_a_hair_outside_is_rounding(tmp_path):
    values = RAMP.copy()
    values[0, 0], values[-1, -1] = -0.0009, 1.0009
    found = read_given_map(write(tmp_path / "a.npy", values), SHAPE)
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.npy", np.where(MASK, np.nan, 0.5), "not finite"),
        ("a.npy", np.where(MASK, 1.01, 0.5), r"1\.01, which is not in \[0, 1\]"),
        ("a.npy", np.where(MASK, -2.0, 0.5), "the value -2"),
        ("a.npy", RAMP * 255, r"not in \[0, 1\]"),
        ("a.npy", RAMP[:-1], "24 x 19 pixels but its truth is 24 x 20"),
        ("a.npy", np.stack([RAMP, RAMP]), "pixels but its truth"),
        ("a.npy", np.arange(480).reshape(SHAPE), "the values 0, 1, 2, 3, 4, 5, ... and"),
        ("a.npy", MASK.astype(complex), "no numbers"),
        ("a.npy", np.repeat(np.array([0, 1, 2], np.uint8), 160).reshape(SHAPE), "3 labels"),
        ("a.npy", np.repeat(np.array([0, 127, 255], np.uint8), 160).reshape(SHAPE), "3 labels"),
        ("a.npy", np.full(SHAPE, 100, np.uint8), "the values 100 and it isn't clear"),
        ("a.png", np.where(MASK, 250, 200).astype(np.uint8), "the values 200, 250 and it isn't clear"),
        ("a.png", np.repeat(np.array([0, 127, 255], np.uint8), 160).reshape(SHAPE), "3 labels"),
        ("a.png", np.repeat(np.array([0, 1, 2, 3], np.uint8), 120).reshape(SHAPE), "labels"),
        ("a.png", MASK[:, :-1].astype(np.uint8) * 255, "23 x 20 pixels"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, name, values, words):
    path = write(tmp_path / name, values)
    with pytest.raises(InputError, match=words) as refused:
        read_given_map(path, SHAPE)
    assert str(path) in str(refused.value)


def test_a_coloured_label_map_is_no_probability(tmp_path):
    colours = np.zeros((*SHAPE, 3), np.uint8)
    colours[:, :8], colours[:, 8:16] = (255, 0, 0), (0, 255, 0)
    with pytest.raises(InputError, match="neither a mask of two values nor a grey map"):
        read_given_map(write(tmp_path / "a.png", colours), SHAPE)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"harm": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="no readable NPY array"):
        read_given_map(tmp_path / "a.npy", SHAPE)


def test_files_are_known_by_their_images(tmp_path):
    for name in ("p1_mask.png", "p2.npy", ".p3.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(list_given_files(tmp_path, "_mask")) == ["p1", "p2"]
    (tmp_path / "p1.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"both masks of p1"):
        list_given_files(tmp_path, "_mask")
    with pytest.raises(InputError, match="doesn't exist"):
        list_given_files(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no mask"):
        list_given_files(tmp_path / "empty")
