"""What is cut, edited, exchanged or gone is made again and said, or refused; it never changes a table."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lungseg.harness.run import benchmark
from lungseg.report.contents import read_contents
from lungseg.report.write import write_report
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import NO_TIMING

pytestmark = pytest.mark.usefixtures("without_figures")
ALL = ["mean-mask, fold 0, seed 0", "pixels, fold 0, seed 0", "pixels, fold 0, seed 1"]
TABLES = ("scores", "calibration", "history", "importance", "statistics")


def drop_a_row(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))


def edit_a_dice(path):
    table = pd.read_csv(path, dtype=str)
    table["dice"] = "0.999"
    table.to_csv(path, index=False)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def exchange(path):
    shutil.copyfile(str(path).replace("f0-s0", "f0-s1"), path)


def edit_the_key(path):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"seconds": -1.0}))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.fixture(scope="module")
def mended(finished_once, tmp_path_factory):
    """A results directory that each test harms and mends: so the next one sees whether all was mended."""
    return shutil.copytree(finished_once, tmp_path_factory.mktemp("mended") / "out")


@pytest.mark.parametrize(
    ("file", "harm", "again", "fitted"),
    [
        ("trials/pixels/f0-s0/scores.csv", drop_a_row, [ALL[1]], False),
        ("trials/pixels/f0-s0/scores.csv", edit_a_dice, [ALL[1]], False),
        ("trials/pixels/f0-s0/scores.csv", exchange, [ALL[1]], False),
        ("trials/pixels/f0-s0/calibration.csv", empty, [ALL[1]], False),
        ("trials/pixels/f0-s1/trial.json", empty, [ALL[2]], False),
        ("trials/pixels/f0-s1/trial.json", edit_the_key, [ALL[2]], False),
        ("trials/pixels/f0-s1/trial.json", make_a_folder, [ALL[2]], False),
        ("trials/pixels/f0-s1/fit.json", cut, [ALL[2]], True),
        ("trials/pixels/f0-s1/fit.json", remove, [ALL[2]], True),
        ("trials/pixels/f0-s1/history.csv", remove, [ALL[2]], True),
        ("models/pixels/f0-s1/ridge.safetensors", flip_a_bit, [ALL[2]], True),
        ("models/pixels", remove, ALL[1:], True),
        ("trials", remove, ALL, True),
        ("predictions/maps/pixels/f0-s0", remove, [ALL[1]], False),
        ("predictions/truth", remove, [], False),
        ("predictions/images.json", cut, [], False),
        ("scores.csv", edit_a_dice, [], False),
        ("statistics.csv", remove, [], False),
    ],
)
def test_what_is_damaged_is_made_again_and_said(
    spec_file, finished_once, mended, computed, monkeypatch, capsys, file, harm, again, fitted
):
    import lungseg.harness.evaluate as evaluate

    fits, fit = [], evaluate.fit_trial
    monkeypatch.setattr(evaluate, "fit_trial", lambda trial, *rest: (fits.append(trial), fit(trial, *rest)))
    harm(mended / file)
    benchmark(read_spec(spec_file, NO_TIMING), mended)
    assert computed == again
    assert bool(fits) is fitted
    said = capsys.readouterr().out
    assert said.count("is made again") == (len(again) if file != "trials" else 0)
    for table in TABLES:
        assert (mended / f"{table}.csv").read_bytes() == (finished_once / f"{table}.csv").read_bytes()
    stored = {path.relative_to(finished_once) for path in finished_once.rglob("*") if path.is_file()}
    assert {path.relative_to(mended) for path in mended.rglob("*") if path.is_file()} >= stored


def test_a_damaged_picture_is_drawn_from_again_after_the_next_run(spec_file, finished):
    (picture, *_) = sorted((finished / "predictions/truth").glob("*.png"))
    whole = picture.read_bytes()
    cut(picture)
    benchmark(read_spec(spec_file, NO_TIMING), finished)
    assert picture.read_bytes() == whole


@pytest.mark.figures
def test_report_refuses_pictures_that_the_run_did_not_store(spec_file, finished):
    for folder in ("truth", "maps/pixels/f0-s0"):
        one, other = sorted((finished / "predictions" / folder).glob("*.png"))[:2]
        whole = one.read_bytes()
        shutil.copyfile(other, one)
        with pytest.raises(InputError, match=rf"{one.name} has .*: run the benchmark again"):
            write_report(finished)
        one.write_bytes(whole)


def test_a_record_of_another_trial_is_no_fit_of_other_settings(spec_file, finished, computed):
    for name in ("fit.json", "begun.json"):
        shutil.copyfile(finished / "trials/pixels/f0-s1" / name, finished / "trials/pixels/f0-s0" / name)
    benchmark(read_spec(spec_file, NO_TIMING), finished)
    assert computed == ["pixels, fold 0, seed 0"]


def test_report_refuses_tables_of_another_run(spec_file, finished, finished_once):
    old = (finished / "scores.csv").read_bytes()
    spec = read_spec(spec_file, [*NO_TIMING, "approach.pixels.threshold=0.4"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lungseg.harness.evaluate.score_sets", interrupt)
        with pytest.raises(KeyboardInterrupt):
            benchmark(spec, finished)
    assert (finished / "scores.csv").read_bytes() == old
    with pytest.raises(
        InputError, match="finished is not finished, so it has no tables yet: run the benchmark"
    ):
        write_report(finished)
    benchmark(spec, finished)
    assert (finished / "scores.csv").read_bytes() != old
    shutil.copyfile(finished_once / "scores.csv", finished / "scores.csv")
    with pytest.raises(InputError, match=r"scores\.csv .* so it isn't this run's: run the benchmark again"):
        read_contents(finished)
    benchmark(spec, finished)
    assert (read_contents(finished).scores.query("approach == 'pixels'")["threshold"] == 0.4).all()


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_changed_cached_image_is_read_anew(tmp_path, discs, monkeypatch):
    from lungseg.learning.networks.image_cache import read_images

    monkeypatch.setenv("LUNGSEG_CACHE", str(tmp_path / "images"))
    samples = discs(2)
    before = read_images(samples, 32).read_batch([0, 1])
    (one, _) = sorted((tmp_path / "images").rglob("*.npy"))
    flip_a_bit(one)
    after = read_images(samples, 32).read_batch([0, 1])
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
