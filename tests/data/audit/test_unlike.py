import numpy as np
import pytest

from lungseg.data.audit.unlike import FEWEST, find_unlike, reduce_picture
from lungseg.data.datasets.phantom import render


@pytest.fixture(scope="module")
def pictures():
    return [reduce_picture(render(0, index, 96)[0]) for index in range(60)]


@pytest.fixture(scope="module")
def planted(pictures):
    rows, columns = np.mgrid[:96, :96]
    made = [
        (rows // 12 + columns // 12) % 2,  # a chessboard
        np.random.default_rng(0).random((96, 96)),
        np.sin(columns / 2) / 2 + 0.5,  # stripes
    ]
    inverted = [1 - one for one in pictures[:3]]
    turned = [np.rot90(one, -turns) for turns, one in enumerate(pictures[3:6], start=1)]
    return [*inverted, *turned, *(reduce_picture(one) for one in made), *pictures[9:]]


def test_what_is_planted_is_named_and_nothing_else(planted):
    found = find_unlike(planted)
    assert found.inverted == [0, 1, 2]
    assert found.turned == {3: 90, 4: 180, 5: 270}
    assert found.foreign == [6, 7, 8]


def test_sound_and_mirrored_pictures_raise_no_alarm(pictures):
    found = find_unlike([*pictures[:57], *(one[:, ::-1] for one in pictures[57:])])
    assert (found.inverted, found.turned, found.foreign) == ([], {}, [])


def test_among_few_pictures_nothing_is_said(planted):
    found = find_unlike(planted[: FEWEST - 1])
    assert (found.inverted, found.turned, found.foreign) == ([], {}, [])
