"""A short part of the campaign `benchmarks/studies/reliability`, and what it says of its cases."""

import os
import time
import warnings
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies.reliability import campaign
from benchmarks.studies.reliability.compare import find_changed, find_difference
from benchmarks.studies.reliability.image_cases import ImageCases
from benchmarks.studies.reliability.outcomes import BAD, Wrong, make_rows
from benchmarks.studies.reliability.picture_damage import find_contradiction, zero_block
from benchmarks.studies.reliability.spec_cases import NO_NETWORK, SpecCases
from benchmarks.studies.reliability.spec_damage import make_bases, write_toml
from benchmarks.studies.reliability.state_cases import StateCases
from benchmarks.studies.reliability.workers import run_cases, try_case
from lungseg.spec import read_spec
from lungseg.system.errors import InputError


@pytest.fixture
def restored(monkeypatch):
    """What cases change in their process is as before when the test ends."""
    for name in ("LUNGSEG_CACHE", "TORCH_HOME", *NO_NETWORK):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("lungseg.report.write.draw_figures", lambda contents: [])
    with warnings.catch_warnings():
        yield


# In this process, which has imported already what others would need seconds for.
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("kind", "count"), [(ImageCases, 64), (SpecCases, 12), (StateCases, 6)], ids=["images", "specs", "states"]
)
def test_nothing_breaks_it(kind, count, tmp_path):
    cases = kind(1, tmp_path)
    cases.prepare()
    outcomes = [try_case(cases, number) for number in range(count)]
    assert [outcome for outcome in outcomes if outcome.result in BAD] == []
    assert {outcome.result for outcome in outcomes} == {"read", "refused"}


@dataclass
class Faulty:
    """A case of each way to fail."""

    part: str = "faulty"

    def prepare(self):
        pass

    def name_kind(self, number):
        return "odd" if number % 2 else "even"

    def find_limit(self, number):
        return 0.3

    def run(self, number):
        if number == 1:
            raise InputError("mend the key")
        if number == 2:
            raise InputError("two\nlines")
        if number == 3:
            raise ZeroDivisionError
        if number == 4:
            raise Wrong("another number")
        if number == 5:
            time.sleep(60)
        if number == 6:
            os._exit(3)
        if number == 7:
            os.write(2, b"a warning\n")


def test_each_way_to_fail_is_told_from_the_others(tmp_path):
    # Forked from this process, since a new one would import for seconds.
    outcomes = list(run_cases(Faulty(), range(8), tmp_path, get_context("fork")))
    found = {outcome.number: outcome.result for outcome in outcomes}
    expected = ["read", "refused", "traceback", "traceback", "silent", "hang", "traceback", "read"]
    assert [found[number] for number in range(8)] == expected
    texts = {outcome.number: outcome.text for outcome in outcomes}
    assert "time.sleep" in texts[5] or "in run" in texts[5]
    assert "died (3)" in texts[6]
    even, odd = make_rows(outcomes)
    assert (even["read"], even["tracebacks"], even["silent"], even["tried"]) == (1, 2, 1, 4)
    assert (odd["refused"], odd["hangs"], odd["tracebacks"], odd["noise"]) == (1, 1, 1, 1)


def test_a_picture_that_contradicts_itself_is_noticed(tmp_path):
    cases = ImageCases(0, tmp_path)
    cases.prepare()
    sound = [original for original in cases.originals if original.format == "PNG"]
    assert not any(
        find_contradiction(original.data, "PNG") for original in cases.originals if original in sound
    )
    rng = np.random.default_rng(0)
    damaged = [zero_block(original.data, "BMP", rng) for original in sound]  # without new checksums
    assert any(find_contradiction(data, "PNG") for data in damaged)


def test_the_sound_specs_can_be_written_and_read(tmp_path):
    for values in make_bases():
        path = tmp_path / "spec.toml"
        path.write_text(write_toml(values), "utf-8")
        assert read_spec(path).name == values["name"]


def test_tables_are_compared_without_times(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, seconds in ((one, 1), (two, 2)):
        (folder / "models").mkdir(parents=True)
        (folder / "training.csv").write_text(f"approach,seconds\na,{seconds}\n")
        (folder / "scores.csv").write_text("dice\n0.5\n")
    assert find_difference(one, two) is None
    (two / "models/new.txt").write_text("")
    assert find_difference(one, two) == "models/new.txt is there and should not be"
    (one / "scores.csv").write_text("dice\n0.6\n")
    assert find_changed(one, two, ("*.csv",)) == "scores.csv differs"


def test_a_part_that_is_stored_is_not_run_again(tmp_path, monkeypatch, capsys):
    words = ["--out", str(tmp_path), "--part", "images", "--scale", "0.01"]
    outcome = campaign.Outcome("images", 7, "cut", "silent", "in /srv/secret/place/x.png")
    monkeypatch.setattr(campaign, "run_part", lambda *_: iter([outcome]))
    assert campaign.main(words) == 1
    monkeypatch.setattr(campaign, "run_part", lambda *_: pytest.fail("ran a stored part again"))
    assert campaign.main(words) == 1
    assert "stored by a former campaign" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "campaign.csv")
    assert table[["part", "kind", "silent"]].to_numpy().tolist() == [["images", "cut", 1]]
    failures = (tmp_path / "failures.txt").read_text()
    assert failures.startswith("--only images:7 --seed 0 (cut): silent")
    assert "secret" not in failures
    assert "1 cases, 1 of which failed" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--scale", "0"], "--scale is above 0"), (["--only", "images"], "not of the form PART:NUMBER")],
)
def test_wrong_words_end_in_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        campaign.main(words)
    assert sentence in capsys.readouterr().err
