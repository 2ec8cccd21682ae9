"""Further test sets: every fit is scored on each, none is trained again, and leaks are looked for in all."""

import shutil

import pandas as pd
import pytest

from lungseg.data.datasets.export import write_phantoms
from lungseg.harness.commands.evaluate_stored import evaluate_results
from lungseg.harness.run import benchmark
from lungseg.results import read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from tests.refusals import assert_refused
from tests.tiny import NO_TIMING, SPEC

pytestmark = pytest.mark.usefixtures("without_figures")
OTHERS = {"count": 7, "size": 40, "seed": 5}
TABLE = '[[test_data]]\ndataset = "phantom"\nname = "others"\n' + "".join(
    f"{key} = {value}\n" for key, value in OTHERS.items()
)


@pytest.fixture
def extended(spec_file):
    """The tiny spec with another test set."""
    spec_file.write_text(SPEC + TABLE)
    return read_spec(spec_file, NO_TIMING)


@pytest.fixture
def evaluated(finished, extended, computed, monkeypatch):
    """A finished run that got another test set in its spec; nothing of it is fitted again."""
    import lungseg.harness.evaluate as module

    monkeypatch.setattr(module, "fit_trial", lambda *_: pytest.fail("something is trained again"))
    benchmark(extended, finished)
    return finished


def lines_of(directory, dataset):
    lines = (directory / "scores.csv").read_text().splitlines()
    return [line for line in lines if f",{dataset}," in line]


def test_a_finished_run_gets_a_further_test_set_without_training(evaluated, finished_once):
    scores = read_table(evaluated, "scores")
    assert scores.groupby("dataset")["image_id"].nunique().to_dict()["others"] == 7
    own = pd.read_csv(evaluated / "scores.csv", dtype=str)
    former = pd.read_csv(finished_once / "scores.csv", dtype=str)
    own = own[own["dataset"] == "phantom"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, former)
    statistics = read_table(evaluated, "statistics")
    assert set(statistics["dataset"]) == {"phantom", "others"}
    assert set(read_table(evaluated, "calibration")["dataset"]) == {"phantom", "others"}


@pytest.mark.report
def test_a_further_test_set_has_a_table_of_its_own(evaluated):
    page = (evaluated / "summary.md").read_text()
    assert "## Test set others" in page
    assert "7 images of 7 patients. The fits are those of the tables above" in page
    table = pd.read_csv(evaluated / "summary.csv")
    assert list(table["dataset"]).count("others") == table["approach"].nunique()
    means = read_table(evaluated, "statistics")
    mean = means[(means["dataset"] == "others") & (means["metric"] == "dice") & (means["kind"] == "mean")]
    listed = table[table["dataset"] == "others"].set_index("approach")["dice"]
    assert listed.to_dict() == pytest.approx(mean.set_index("approach")["value"].to_dict())


def test_stored_models_give_the_rows_that_the_spec_gives(evaluated, finished_once, tmp_path):
    out = tmp_path / "on-others"
    report = evaluate_results(finished_once, "phantom", OTHERS, out, "others")
    assert lines_of(out, "others") == lines_of(evaluated, "others")
    assert report.contents.run["data"]["dataset"] == "others"
    assert "seconds" in report.contents.run["trials"][0]
    again = (out / "scores.csv").read_bytes()
    (out / "scores.csv").unlink()
    evaluate_results(finished_once, "phantom", OTHERS, out, "others")
    assert (out / "scores.csv").read_bytes() == again


def test_evaluate_as_typed(lungseg, finished_once, tmp_path):
    out = str(tmp_path / "out")
    words = ["evaluate", str(finished_once), "--data", "phantom", "--out", out]
    done = lungseg(*words, *(word for key, value in OTHERS.items() for word in ("--set", f"{key}={value}")))
    assert done.returncode == 0, done.stderr
    assert_refused(lungseg("evaluate", str(tmp_path), "--data", "phantom"), "run.json is missing")
    assert_refused(lungseg(*words, "--set", "colour=1"), "unknown key 'colour'")
    assert_refused(lungseg(*words, "--name", "a b"), "--name 'a b' can't be used")
    words = ["evaluate", str(finished_once), "--data", "truth", "--set", f"masks={tmp_path}"]
    assert_refused(lungseg(*words), "image")


def test_a_published_result_has_no_models(finished, tmp_path):
    shutil.rmtree(finished / "models")
    with pytest.raises(InputError, match="a published result has no models"):
        evaluate_results(finished, "phantom", OTHERS, tmp_path / "out")


def test_training_images_in_a_further_test_set_end_the_run(spec_file, finished_once, tmp_path):
    # The benchmark's own phantoms: some of them were trained on.
    spec_file.write_text(SPEC + '[[test_data]]\ndataset = "phantom"\nname = "again"\ncount = 12\nsize = 48\n')
    with pytest.raises(InputError, match="stand on two sides"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "a")
    same = {"count": 12, "size": 48}
    with pytest.raises(InputError, match="set --allow-leaks"):
        evaluate_results(finished_once, "phantom", same, tmp_path / "b", "again")
    report = evaluate_results(finished_once, "phantom", same, tmp_path / "b", "again", allow_leaks=True)
    assert report.contents.run["leaks"]


def test_without_the_training_images_nothing_is_said_of_leaks(tmp_path, spec_file):
    """Results name no absolute path, so the spec has to, or the user agrees to go on without the audit."""
    write_phantoms(tmp_path / "clinic", 12, 48, 0)
    text = SPEC.replace('dataset = "phantom"\ncount = 12\nsize = 48\n', "")
    folders = f'dataset = "folder"\nimages = "{tmp_path}/clinic/images"\nmasks = "{tmp_path}/clinic/masks"\n'
    spec_file.write_text(text.replace("[data]\n", f"[data]\n{folders}"))
    spec = read_spec(spec_file, NO_TIMING)
    benchmark(spec, tmp_path / "run")
    words = (tmp_path / "run", "phantom", OTHERS, tmp_path / "out")
    with pytest.raises(InputError, match=r"can't be read here .*: name the benchmark's spec with --spec"):
        evaluate_results(*words)
    evaluate_results(*words, spec=spec)
    assert read_json(tmp_path / "out/run.json")["audit"]["checked"] == 12 + 7
    same = {"images": f"{tmp_path}/clinic/images", "masks": f"{tmp_path}/clinic/masks"}
    with pytest.raises(InputError, match="stand on two sides"):
        evaluate_results(tmp_path / "run", "folder", same, tmp_path / "same", "again", spec=spec)
    (tmp_path / "clinic").rename(tmp_path / "moved")
    evaluate_results(*words, spec=spec, allow_leaks=True)
    notes = read_json(tmp_path / "out/run.json")["notes"]
    assert any("no leak audit" in note for note in notes)
    page = (tmp_path / "out/summary.md").read_text()
    assert "Leak audit: none was made, so training images may be among those scored" in page


def test_two_test_sets_of_one_name_are_refused(spec_file, tmp_path):
    spec_file.write_text(SPEC + '[[test_data]]\ndataset = "phantom"\nseed = 9\n')
    with pytest.raises(InputError, match="two test sets are called 'phantom'"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out")
