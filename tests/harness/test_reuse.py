"""`--reuse`: rows of a published result in place of trainings that would give the same."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest

from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.report.publish import publish
from lungseg.results import finish_run, read_table
from lungseg.spec import read_spec
from lungseg.system import usable_runtime
from lungseg.system.errors import InputError
from lungseg.system.files import read_json, write_json
from lungseg.system.stored import write_record
from tests.tiny import NO_TIMING

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def published(finished, tmp_path):
    """The tables of a finished run, without its models and maps."""
    (finished / "figures").mkdir(exist_ok=True)
    (finished / "summary.md").touch()
    return publish(finished, tmp_path / "published", tmp_path / "no-readme")[0]


@pytest.mark.report
def test_the_same_trainings_are_taken_over(spec_file, tmp_path, published, computed):
    out = tmp_path / "out"
    summary = (
        benchmark(read_spec(spec_file, NO_TIMING), out, reuse=published)
        .page.with_name("summary.md")
        .read_text()
    )
    assert computed == ["mean-mask, fold 0, seed 0", "pixels, fold 0, seed 0"]  # their maps are drawn
    for table in ("scores", "calibration", "statistics"):
        assert (out / f"{table}.csv").read_bytes() == (published / f"{table}.csv").read_bytes()
    trials = {(p["approach"], p["seed"]): p for p in read_json(out / "run.json")["trials"]}
    assert "taken_over" not in trials["pixels", 0]
    former, record = read_json(published / "run.json"), read_json(out / "run.json")
    first = {(p["approach"], p["seed"]): p for p in former["trials"]}
    assert trials["pixels", 1]["seconds"] == first["pixels", 1]["seconds"]
    assert trials["pixels", 1]["taken_over"]["finished"] == former["finished"]
    assert record["seconds"] == pytest.approx(
        sum(p["seconds"] for p in trials.values() if "taken_over" not in p)
    )
    # A whole number has no decimals if all of its column are whole.
    pd.testing.assert_frame_equal(training(out, 1), training(published, 1), check_dtype=False)
    assert "Taken over with their training times from tiny" in summary
    assert "pixels fold 0 seed 1" in summary
    computed.clear()
    benchmark(read_spec(spec_file, NO_TIMING), out)
    assert computed == []


def test_what_was_taken_over_twice_still_names_the_first_source(spec_file, tmp_path, published):
    out, again = tmp_path / "out", tmp_path / "again"
    benchmark(read_spec(spec_file, NO_TIMING), out, reuse=published)
    benchmark(read_spec(spec_file, NO_TIMING), again, reuse=out)
    origins = [read_json(folder / "run.json")["trials"][-1]["taken_over"] for folder in (out, again)]
    assert origins[0] == origins[1]
    assert origins[0]["finished"] == read_json(published / "run.json")["finished"]


def test_the_results_directory_itself_is_refused(spec_file, published):
    with pytest.raises(InputError, match="leave it out"):
        benchmark(read_spec(spec_file, NO_TIMING), published, fresh=True, reuse=published / "../tiny")
    assert read_json(published / "run.json")["finished"]


def test_a_damaged_result_clears_nothing(spec_file, tmp_path, published):
    out = tmp_path / "finished"
    harm(published, "rows")
    with pytest.raises(InputError, match=r"scores\.csv .* so it isn't this run's"):
        benchmark(read_spec(spec_file, NO_TIMING), out, fresh=True, reuse=published)
    assert (out / "models/pixels/f0-s1").is_dir()
    assert read_json(out / "run.json")["finished"]


def test_a_fit_of_this_run_that_is_not_scored_yet_stays(spec_file, finished, published, computed):
    out = finished
    (out / "trials/pixels/f0-s1/trial.json").unlink()
    benchmark(read_spec(spec_file, NO_TIMING), out, reuse=published)
    assert computed == ["pixels, fold 0, seed 1"]
    assert (out / "models/pixels/f0-s1").is_dir()


def test_the_layout_of_images_counts(spec_file, monkeypatch):
    keys = [make_plan(read_spec(spec_file)).trials[1].keys.fit]
    original = usable_runtime.resolve_runtime
    monkeypatch.setattr(
        usable_runtime, "resolve_runtime", lambda *words: replace(original(*words), channels_last=False)
    )
    keys.append(make_plan(read_spec(spec_file)).trials[1].keys.fit)
    assert len(set(keys)) == 2


@pytest.mark.report
def test_a_changed_setting_is_trained_anew(spec_file, tmp_path, published, computed):
    changed = [*NO_TIMING, "approach.pixels.size=20"]
    summary = (
        benchmark(read_spec(spec_file, changed), tmp_path / "out", reuse=published)
        .page.with_name("summary.md")
        .read_text()
    )
    assert "pixels, fold 0, seed 1" in computed
    assert "Taken over" not in summary


def test_what_is_stored_already_stays(spec_file, finished, published):
    out = finished
    benchmark(read_spec(spec_file, NO_TIMING), out, reuse=published)
    assert not any("taken_over" in trial for trial in read_json(out / "run.json")["trials"])


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        ("no run", r"run\.json is missing"),
        ("unfinished", "not finished"),
        ("record", r"run\.json is damaged or was changed"),
        ("rows", r"scores\.csv has \d+ bytes instead of \d+"),
        ("number", r"scores\.csv has another content"),
        ("no table", r"calibration\.csv is missing"),
        ("other names", "hasn't the rows of .* under the names of its images"),
    ],
)
def test_a_result_that_is_not_whole_is_refused(spec_file, tmp_path, published, damage, names):
    harm(published, damage)
    with pytest.raises(InputError, match=f"{names}.*[Cc]hoose another result"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out", reuse=published)
    assert not (tmp_path / "out/trials").exists()


def harm(published, damage):
    run, scores = published / "run.json", published / "scores.csv"
    record = read_json(run)
    del record["sha256"]
    text = scores.read_text()
    match damage:
        case "no run":
            shutil.rmtree(published)
        case "unfinished":
            write_record(run, record | {"finished": None})
        case "record":
            write_json(run, record | {"seconds": 1, "sha256": "ab" * 32})
        case "rows":
            scores.write_text("".join(text.splitlines(keepends=True)[:-1]))
        case "number":
            scores.write_text(text.replace(",px,", ",mm,", 1))
        case "no table":
            (published / "calibration.csv").unlink()
        case "other names":
            scores.write_text(text.replace("phantom-", "image-"))
            finish_run(published, record)


def training(folder, seed):
    rows = read_table(folder, "training")
    return rows[(rows["approach"] == "pixels") & (rows["seed"] == seed)].reset_index(drop=True)
