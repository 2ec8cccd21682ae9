"""`--reuse`: rows of a published result in place of trainings that would give the same."""

import shutil

import pandas as pd
import pytest
from tiny import NO_TIMING

from lungseg.errors import InputError
from lungseg.harness import benchmark
from lungseg.publish import publish
from lungseg.results import read_json
from lungseg.spec import read_spec

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def published(spec_file, tmp_path):
    """The tables of a finished run, without its models and maps."""
    benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "first")
    (tmp_path / "first/figures").mkdir(exist_ok=True)
    (tmp_path / "first/summary.md").touch()
    return publish(tmp_path / "first", tmp_path / "published", tmp_path / "no-readme")[0]


@pytest.fixture
def computed(monkeypatch):
    """The labels of the parts that are computed from now on."""
    import lungseg.harness as harness

    labels, original = [], harness.run_part
    monkeypatch.setattr(
        harness, "run_part", lambda part, *rest: (labels.append(part.label), original(part, *rest))
    )
    return labels


def test_the_same_trainings_are_taken_over(spec_file, tmp_path, published, computed):
    out = tmp_path / "out"
    summary = benchmark(read_spec(spec_file, NO_TIMING), out, reuse=published)
    assert computed == ["mean-mask, fold 0, seed 0", "pixels, fold 0, seed 0"]  # their maps are drawn
    for table in ("scores", "calibration", "statistics"):
        assert (out / f"{table}.csv").read_bytes() == (published / f"{table}.csv").read_bytes()
    parts = {(p["approach"], p["seed"]): p for p in read_json(out / "run.json")["parts"]}
    assert parts["pixels", 1]["taken_over"] is True
    assert "taken_over" not in parts["pixels", 0]
    first = {(p["approach"], p["seed"]): p for p in read_json(published / "run.json")["parts"]}
    assert parts["pixels", 1]["seconds"] == first["pixels", 1]["seconds"]
    assert "Taken over" in summary
    assert "pixels, fold 0 seed 1" in summary
    computed.clear()
    benchmark(read_spec(spec_file, NO_TIMING), out)
    assert computed == []


def test_a_changed_setting_is_trained_anew(spec_file, tmp_path, published, computed):
    changed = [*NO_TIMING, "approach.pixels.size=20"]
    summary = benchmark(read_spec(spec_file, changed), tmp_path / "out", reuse=published)
    assert "pixels, fold 0, seed 1" in computed
    assert "Taken over" not in summary


def test_what_is_stored_already_stays(spec_file, tmp_path, published, computed):
    out = tmp_path / "out"
    benchmark(read_spec(spec_file, NO_TIMING), out)
    benchmark(read_spec(spec_file, NO_TIMING), out, reuse=published)
    assert not any("taken_over" in part for part in read_json(out / "run.json")["parts"])


@pytest.mark.parametrize("damage", ["no run", "rows", "columns", "text"])
def test_a_result_that_is_not_whole_is_refused(spec_file, tmp_path, published, damage):
    scores = published / "scores.csv"
    frame = pd.read_csv(scores, dtype=str, keep_default_na=False)
    if damage == "no run":
        shutil.rmtree(published)
    elif damage == "rows":
        frame[:-1].to_csv(scores, index=False)
    elif damage == "columns":
        frame.drop(columns="dice").to_csv(scores, index=False)
    else:
        scores.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"run\.json" if damage in ("no run", "rows") else r"scores\.csv"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out", reuse=published)
    assert not (tmp_path / "out/parts/pixels/f0-s1/part.json").exists()
