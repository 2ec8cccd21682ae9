import numpy as np
import pytest

from benchmarks.studies.data import planted_pictures
from benchmarks.studies.data.foreign_pictures import CHOSEN_ON, REPORTED
from benchmarks.studies.data.planted_pictures import AMONG, SORTS, Counts, describe, enter, make_row, plant
from lungseg.data.audit.unlike import Unlike
from lungseg.data.loading import find_dataset

KINDS = ["portrait", "hand", "mask"]


@pytest.mark.parametrize("make", (CHOSEN_ON | REPORTED).values(), ids=(CHOSEN_ON | REPORTED))
def test_foreign_pictures_are_pictures_and_differ_from_draw_to_draw(make):
    rng = np.random.default_rng(0)
    first, second = make(rng), make(rng)
    for picture in (first, second):
        assert picture.ndim == 2
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        assert picture.std() > 0.02
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_only_what_is_named_as_what_it_is_counts():
    counts = Counts()
    found = Unlike(inverted=[0, 1, 8], turned={2: 90, 3: 90, 4: 90, 5: 270}, foreign=[6, 20])
    enter(counts, found, KINDS, [f"picture {i}" for i in range(AMONG)])
    foreign = SORTS[2]
    assert counts.planted == {"inverted": 3, "turned": 3, foreign: 3, "sound": 51}
    assert counts.named == {"inverted": 2, "turned": 2, foreign: 1, "sound": 1}
    assert +counts.missed == {"hand": 1, "mask": 1}
    assert +counts.otherwise == {"mask": 1}
    assert counts.alarms == {"picture 20": 1}


def test_the_interval_is_clopper_and_pearsons():
    row = make_row("set", "half", "foreign", 100, 100)
    assert row["share"] == "100.00%"
    assert (
        row["95 % interval"] == f"{0.025 ** (1 / 100):.2%} to 100.00%"
    )  # its closed form where all are named


def test_draws_on_phantoms_plant_what_they_count(monkeypatch):
    monkeypatch.setattr(planted_pictures, "AMONG", 24)
    phantoms = find_dataset("phantom", {"count": 24, "size": 64}, None).samples()
    kinds = {kind: REPORTED[kind] for kind in ("rings", "chart", "ellipses")}
    counts = plant([describe(sample) for sample in phantoms], kinds, 2)
    assert counts.planted == dict(zip(SORTS, (6, 6, 3, 3, 30), strict=True))
    assert [counts.named[sort] for sort in SORTS] == [6, 6, 3, 3, 0]
