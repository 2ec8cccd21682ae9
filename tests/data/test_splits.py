import json
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pytest
from pydantic import ValidationError

from lungseg.data.sample import Sample
from lungseg.data.splits import SIDES, Split, SplitOptions, list_published_splits, make_splits
from lungseg.system.errors import InputError


@dataclass(frozen=True)
class Fake(Sample):
    id: str
    source: str = "one"
    patient: str = ""
    label: str = ""

    def image(self) -> np.ndarray: ...
    def mask(self) -> np.ndarray: ...
    def content(self) -> bytes: ...


def fakes(count, source="one", label="", images=1):
    """`count` patients with `images` images each."""
    return [
        Fake(f"{source}{label}{patient:03}-{i}", source, f"{source}{label}{patient}", label)
        for patient in range(count)
        for i in range(images)
    ]


MIXED = fakes(60, "one", "ill") + fakes(30, "one", "well") + fakes(10, "two", "ill")
ALL_RULES = ["every-14th", "random", "kfold", "by-source"]
OPTIONS = SplitOptions(train_sources=["one"], test_sources=["two"])


def sizes(split):
    return len(split.train), len(split.validation), len(split.test)


def strata(split, side, samples):
    by_id = {sample.id: sample for sample in samples}
    return Counter((by_id[name].source, by_id[name].label) for name in getattr(split, side))


@pytest.mark.parametrize("rule", ALL_RULES)
def test_every_rule_is_disjoint_and_doesnt_depend_on_the_order(rule):
    splits = make_splits(rule, MIXED, OPTIONS)
    for split in splits:
        names = split.train + split.validation + split.test
        assert len(set(names)) == len(names) == 100
        assert split.rule == rule
    assert make_splits(rule, MIXED[::-1], OPTIONS) == splits


def test_every_14th():
    samples = [Fake(f"{i:02}", patient=f"{i:02}") for i in range(30)]
    (split,) = make_splits("every-14th", samples[::-1], SplitOptions())
    assert split.validation == ("00", "14", "28")
    assert split.test == ("01", "15", "29")
    assert len(split.train) == 24


def test_last_fifth_has_no_test_side():
    samples = [Fake(f"{i:02}", patient=f"{i:02}") for i in range(11)]
    (split,) = make_splits("last-fifth", samples, SplitOptions())
    assert split.validation == ("09", "10")
    assert split.train == tuple(f"{i:02}" for i in range(9))
    assert split.test == ()


def test_every_14th_of_704():
    assert sizes(make_splits("every-14th", fakes(704), SplitOptions())[0]) == (602, 51, 51)


def test_random_keeps_fractions_and_strata():
    (split,) = make_splits("random", MIXED, SplitOptions())
    assert sizes(split) == (70, 10, 20)
    # 60, 30 and 10 patients: a fifth of each, give or take one.
    test = strata(split, "test", MIXED)
    assert abs(test["one", "ill"] - 12) <= 1
    assert abs(test["one", "well"] - 6) <= 1
    assert abs(test["two", "ill"] - 2) <= 1


def test_random_follows_its_seed():
    first, again, other = (make_splits("random", MIXED, SplitOptions(split_seed=s))[0] for s in (0, 0, 1))
    assert first == again
    assert first.sha256 == again.sha256
    assert first.test != other.test
    assert first.sha256 != other.sha256


def test_random_is_the_same_on_every_machine():
    (split,) = make_splits("random", fakes(10), SplitOptions(fractions=(0.6, 0.2, 0.2)))
    assert sizes(split) == (6, 2, 2)
    assert split.sha256 == "795fdde650f789a921e251347df3e3097d0f29675682f6fce763ad1dd07af098"


@pytest.mark.parametrize("rule", ["random", "kfold", "by-source"])
def test_images_of_a_patient_stay_together(rule):
    samples = fakes(20, images=3) + fakes(10, "two", images=2)
    patient = {sample.id: sample.patient for sample in samples}
    for split in make_splits(rule, samples, OPTIONS):
        sides = [{patient[name] for name in getattr(split, side)} for side in SIDES]
        assert sum(len(side) for side in sides) == len(set.union(*sides)) == 30


def test_kfold_tests_each_image_once():
    splits = make_splits("kfold", MIXED, SplitOptions(folds=5))
    assert [split.fold for split in splits] == [0, 1, 2, 3, 4]
    assert Counter(name for split in splits for name in split.test) == Counter(s.id for s in MIXED)
    for split in splits:
        assert sizes(split) == (72, 8, 20)
        # 60, 30 and 10 patients over 5 folds
        assert strata(split, "test", MIXED) == {("one", "ill"): 12, ("one", "well"): 6, ("two", "ill"): 2}


def test_by_source():
    (split,) = make_splits("by-source", MIXED, OPTIONS)
    assert sizes(split) == (81, 9, 10)
    assert all(name.startswith("two") for name in split.test)
    assert all(name.startswith("one") for name in split.train + split.validation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "train_sources of split 'by-source' is empty: use some of one, two"),
        ({"train_sources": ["one"]}, "test_sources of split 'by-source' is empty"),
        (
            {"train_sources": ["three"], "test_sources": ["two"]},
            "names the unknown source 'three': .* one, two",
        ),
        (
            {"train_sources": ["one", "two"], "test_sources": ["two"]},
            "source 'two' is in train_sources and in",
        ),
    ],
)
def test_by_source_with_wrong_sources(options, message):
    with pytest.raises(InputError, match=message):
        make_splits("by-source", MIXED, SplitOptions(**options))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cxr704-ovcharenko", (506, 57, 141)),
        ("montgomery-mednet", (96, 14, 28)),
        ("shenzhen-mednet", (396, 56, 114)),
        ("jsrt-mednet", (172, 25, 50)),
    ],
)
def test_published_lists(name, expected):
    stored = json.loads((files("lungseg.data") / f"published/{name}.json").read_text())
    assert stored["source"]
    names = [name for side in SIDES for name in stored[side]]
    samples = [Fake(name, patient=name) for name in [*names, "not-in-the-list"]]
    (split,) = make_splits(f"published:{name}", samples, SplitOptions())
    assert sizes(split) == expected
    assert set(split.test) == set(stored["test"])
    fewer = [sample for sample in samples if sample.id not in sorted(names)[:2]]
    with pytest.raises(InputError, match=f"names 2 images that the dataset lacks, the first {min(names)}"):
        make_splits(f"published:{name}", fewer, SplitOptions())


def test_unknown_rules_list_the_known_ones():
    known = "every-14th, last-fifth, random, kfold, by-source, all, published:cxr704-ovcharenko"
    for rule in ("every-15th", "published"):
        with pytest.raises(
            InputError, match=rf"unknown split '{rule}': .*use one of {known}".replace("use", "[uU]se")
        ):
            make_splits(rule, MIXED, SplitOptions())
    with pytest.raises(
        InputError, match="unknown published split 'mine': use one of cxr704-ovcharenko, jsrt"
    ):
        make_splits("published:mine", MIXED, SplitOptions())
    assert len(list_published_splits()) == 4


@pytest.mark.parametrize(
    ("rule", "samples", "side"),
    [
        ("every-14th", fakes(1), "train"),
        ("every-14th", fakes(2), "train"),
        ("random", fakes(2), "validation"),
        ("random", [], "train"),
        ("kfold", fakes(4), "validation"),
        ("by-source", fakes(3) + fakes(3, "two"), "validation"),
    ],
)
def test_an_empty_side_is_refused(rule, samples, side):
    with pytest.raises(InputError, match=f"split '{rule}' leaves the {side} side empty"):
        make_splits(rule, samples, OPTIONS)


def test_kfold_of_too_few_patients_has_an_empty_test_side():
    options = SplitOptions(folds=8, validation_share=0.3)
    with pytest.raises(InputError, match="split 'kfold' leaves the test side empty"):
        make_splits("kfold", fakes(6), options)


def test_a_patient_on_two_sides_is_refused():
    samples = [Fake(f"{i:02}", patient="same" if i < 2 else f"{i}") for i in range(30)]
    with pytest.raises(InputError, match="puts images of patient same into validation and into test"):
        make_splits("every-14th", samples, SplitOptions())


def test_a_duplicate_id_is_refused():
    with pytest.raises(InputError, match="has the image one000-0 in train and in train"):
        make_splits("random", [*fakes(30), *fakes(1)], SplitOptions())


def test_check_finds_an_image_on_two_sides():
    with pytest.raises(InputError, match="split 'mine' has the image b in train and in test"):
        Split("mine", 0, ("a", "b"), ("c",), ("b",)).check({})


def test_sha256_is_that_of_the_lists():
    # sha256 of {"test":["c"],"train":["a"],"validation":["b"]}
    expected = "82dbc2383196703442c7bed3725f76b9485a1c1dbe8cef8a058dfd564b899c3d"
    assert Split("x", 0, ("a",), ("b",), ("c",)).sha256 == expected
    assert Split("y", 3, ("a",), ("b",), ("c",)).sha256 == expected
    assert Split("x", 0, ("b",), ("a",), ("c",)).sha256 != expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.7, 0.2, 0.2)}, "add up to 1, not 1.1"),
        ({"fractions": (1.0, 0.0, 0.0)}, "fractions"),
        ({"folds": 1}, "folds"),
        ({"validation_share": 0}, "validation_share"),
        ({"seed": 1}, "seed"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValidationError, match=message):
        SplitOptions(**options)
