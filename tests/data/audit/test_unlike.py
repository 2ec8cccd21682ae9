import numpy as np
import pytest

from lungseg.data.audit.unlike import FEWEST, describe_picture, find_unlike
from lungseg.data.datasets.phantom import render


@pytest.fixture(scope="module")
def images():
    return [render(0, index, 96)[0] for index in range(60)]


@pytest.fixture(scope="module")
def sound(images):
    return [describe_picture(one) for one in images]


@pytest.fixture(scope="module")
def planted(images, sound):
    rows, columns = np.mgrid[:96, :96]
    foreign = [
        (rows // 12 + columns // 12) % 2,  # a chessboard
        np.random.default_rng(0).random((96, 96)),
        np.sin(columns / 2) / 2 + 0.5,  # stripes
    ]
    inverted = [1 - one for one in images[:3]]
    turned = [np.rot90(one, -turns) for turns, one in enumerate(images[3:6], start=1)]
    return [*(describe_picture(one) for one in (*inverted, *turned, *foreign)), *sound[9:]]


def list_found(found):
    return found.inverted, found.turned, found.foreign


def test_what_is_planted_is_named_and_nothing_else(planted):
    assert list_found(find_unlike(planted)) == ([0, 1, 2], {3: 90, 4: 180, 5: 270}, [6, 7, 8])


def test_sound_and_mirrored_pictures_raise_no_alarm(images, sound):
    mirrored = [describe_picture(one[:, ::-1]) for one in images[:3]]
    assert list_found(find_unlike([*mirrored, *sound[3:]])) == ([], {}, [])


def test_a_wide_border_raises_no_alarm(images, sound):
    framed = []
    for value, widths in ((0, ((0, 40), (0, 0))), (1, ((20, 20), (30, 30))), (0, ((0, 0), (60, 5)))):
        framed.append(describe_picture(np.pad(images[len(framed)], widths, constant_values=value)))
    assert list_found(find_unlike([*framed, *sound[3:]])) == ([], {}, [])


@pytest.mark.parametrize("way", ["inverted", 90, 180, 270])
def test_a_third_that_is_wrong_is_named_too(images, sound, way):
    def spoil(one):
        return 1 - one if way == "inverted" else np.rot90(one, -way // 90)

    found = find_unlike([*(describe_picture(spoil(one)) for one in images[:20]), *sound[20:]])
    wrong = list(range(20))
    assert list_found(found) == (
        (wrong, {}, []) if way == "inverted" else ([], dict.fromkeys(wrong, way), [])
    )


def test_four_foreign_pictures_of_one_kind_do_not_hide_each_other(sound):
    rows, columns = np.mgrid[:96, :96]
    rings = [describe_picture(np.sin(np.hypot(rows - 48, columns - 48) / 2 + i) / 2 + 0.5) for i in range(4)]
    assert list_found(find_unlike([*rings, *sound[4:]])) == ([], {}, [0, 1, 2, 3])


def test_among_few_pictures_nothing_is_said(planted):
    assert list_found(find_unlike(planted[: FEWEST - 1])) == ([], {}, [])
    assert find_unlike(planted[:3] + planted[9:26]).inverted == [0, 1, 2]  # these are FEWEST


def test_the_block_size_changes_nothing(planted, monkeypatch):
    whole = list_found(find_unlike(planted))
    monkeypatch.setattr("lungseg.data.audit.unlike._BLOCK", 7)
    assert list_found(find_unlike(planted)) == whole
